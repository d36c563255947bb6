"""An image that a backbone accepts."""

from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from fgc_mm.errors import FGCError
from fgc_mm.sites.cut import CutNetwork
from fgc_mm.sites.items import Items

Size = tuple[int, int]
_expected: ContextVar[Size | None] = ContextVar('expected', default=None)

# Where gates go does not depend on the size, and most backbones take any; a
# search on a small image takes a tenth of the time of one on a usual image.
SMALL, USUAL = 64, (224, 256, 384, 512)
LEAST = 32  # a module that names less means maps inside the network
# Attributes under which modules of mmpretrain, timm and others keep it.
NAMES = ('img_size', 'image_size', 'input_size', 'init_input_size')
CONFIGS = ('pretrained_cfg', 'default_cfg')


def expect_images(size: Size | None) -> None:
    """Say which images the backbones that are built next will see; (H, W).

    Args:
        size: That the config's pipeline gives, or ``None`` if none is known.
    """
    _expected.set(size)


def small_images(
    backbone: nn.Module,
    size: int | Sequence[int] | None = None,
) -> Tensor:
    """A random image that the backbone accepts; (1, C, H, W).

    Args:
        backbone: Any.
        size: Of the image; by default the first of these that it accepts: a
            small one, those that its modules name, the one that
            :func:`expect_images` was given, usual ones.

    Raises:
        FGCError: The backbone accepts none of them; says why not the size
            that is named or expected, else the last one.
    """
    with CutNetwork(backbone) as cut:
        return accepted_images(cut, size)


def accepted_images(
    cut: CutNetwork,
    size: int | Sequence[int] | None = None,
) -> Tensor:
    """As :func:`small_images`, in a network that is cut already."""
    small, *usual = [(s, s) for s in (SMALL, *USUAL)]
    named = [*named_sizes(cut.backbone), *filter(None, [_expected.get()])]
    sizes = [small, *named, *usual] if size is None else [_pair(size)]
    refusals: dict[Size, FGCError] = {}
    for pair in dict.fromkeys(sizes):
        for channels in dict.fromkeys((_first_channels(cut.backbone), 3)):
            try:
                return _tried(cut, (channels, *pair))
            except FGCError as error:
                refusals[pair] = error
    raise refusals[named[0] if named and size is None else sizes[-1]]


def named_sizes(backbone: nn.Module) -> Iterator[Size]:
    """(H, W) that the backbone or a module in it keeps, outermost first."""
    for module in backbone.modules():
        named = [getattr(module, name, None) for name in NAMES]
        for config in (getattr(module, name, None) for name in CONFIGS):
            if not isinstance(config, Mapping):
                config = getattr(config, '__dict__', {})
            named.append(config.get('input_size'))
        pairs = filter(None, map(_pair, named))
        inner = module is not backbone
        yield from (p for p in pairs if not inner or min(p) >= LEAST)


def _pair(size: Any) -> Size | None:
    """(H, W) of a number of pixels, (H, W) or (C, H, W); else ``None``."""
    if isinstance(size, int) and not isinstance(size, bool):
        size = (size, size)
    if not isinstance(size, (tuple, list)) or len(size) not in (2, 3):
        return None
    whole = all(isinstance(s, int) and s > 0 for s in size)
    return (size[-2], size[-1]) if whole else None


def _tried(cut: CutNetwork, shape: tuple[int, ...]) -> Tensor:
    like = next(cut.backbone.parameters())
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, *shape, generator=generator).to(like)
    cut.run(image, Items())
    return image


def _first_channels(backbone: nn.Module) -> int:
    convs = (m for m in backbone.modules() if isinstance(m, nn.Conv2d))
    return next((conv.in_channels for conv in convs), 3)
