"""Find an image size that a backbone accepts."""

from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from fgc_mm.errors import FGCError
from fgc_mm.sites.batch_sizes import batch_sizes
from fgc_mm.sites.probed_backbone import ProbedBackbone

Size = tuple[int, int]
_expected: ContextVar[Size | None] = ContextVar('expected', default=None)

# Sites do not depend on the image size, and most backbones accept any size. A
# search with a small image takes a tenth of the time.
SMALL, USUAL = (64, 96), (32, 28, 224, 256, 384, 512)
LEAST = 32  # smaller sizes in a module are those of feature maps
# Attributes in which modules of mmpretrain, timm and others store the size.
NAMES = ('img_size', 'image_size', 'input_size', 'init_input_size')
CONFIGS = ('pretrained_cfg', 'default_cfg')


def expect_images(size: Size | None) -> None:
    """Set the image size, (H, W), of the backbones that are built next."""
    _expected.set(size)


def small_images(
    backbone: nn.Module, size: int | Sequence[int] | None = None
) -> Tensor:
    """A random image that the backbone accepts; (1, C, H, W).

    Args:
        backbone: The network.
        size: Image size. Default: the first size that the backbone accepts
            among two small ones, those stored in its modules, the one set by
            :func:`expect_images`, and usual ones.

    Raises:
        FGCError: The backbone accepts none of them. The message is that of
            the stored or expected size, otherwise of the last size, with the
            number of channels with which the backbone gets further.
    """
    with ProbedBackbone(backbone) as probed:
        return accepted_images(probed, size)


def accepted_images(
    probed: ProbedBackbone, size: int | Sequence[int] | None = None
) -> Tensor:
    """Like :func:`small_images`, inside a ``with`` block of the backbone."""
    small, usual = ([(s, s) for s in sizes] for sizes in (SMALL, USUAL))
    named = [*named_sizes(probed.backbone), *filter(None, [_expected.get()])]
    given = _pair(size)
    sizes = [*small, *named, *usual] if given is None else [given]
    errors: dict[Size, tuple[int, FGCError]] = {}
    for pair in dict.fromkeys(sizes):
        for channels in dict.fromkeys((_first_channels(probed.backbone), 3)):
            before = probed.work.done
            try:
                return _run_on_random_image(probed, (channels, *pair))
            except FGCError as error:
                done = probed.work.done - before
                if pair not in errors or done > errors[pair][0]:
                    errors[pair] = done, error
    raise errors[named[0] if named and given is None else sizes[-1]][1]


def named_sizes(backbone: nn.Module) -> Iterator[Size]:
    """(H, W) stored in the backbone or a module in it, outermost first."""
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
    """(H, W) from a number of pixels, (H, W) or (C, H, W); else ``None``."""
    if isinstance(size, int) and not isinstance(size, bool):
        size = (size, size)
    if not isinstance(size, (tuple, list)) or len(size) not in (2, 3):
        return None
    valid = all(isinstance(s, int) and s > 0 for s in size)
    return (size[-2], size[-1]) if valid else None


def _run_on_random_image(
    probed: ProbedBackbone, shape: tuple[int, ...]
) -> Tensor:
    like = next(probed.backbone.parameters())
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, *shape, generator=generator).to(like)
    batch_sizes(probed, image)
    return image


def _first_channels(backbone: nn.Module) -> int:
    convs = (m for m in backbone.modules() if isinstance(m, nn.Conv2d))
    return next((conv.in_channels for conv in convs), 3)
