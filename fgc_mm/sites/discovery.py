"""From a backbone and a user's wish to the list of sites."""

import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

from fgc_mm.errors import FGCError
from fgc_mm.sites.cut import CutNetwork
from fgc_mm.sites.every_conv import Kinds
from fgc_mm.sites.patterns import match_names
from fgc_mm.sites.search import SiteSearch
from fgc_mm.sites.site import GateSite
from fgc_mm.sites.trace import Items, Trace

# Where gates go does not depend on the size, and most backbones take any.
SMALL, USUAL = 64, (224, 256, 384, 512)


def find_sites(
    backbone: nn.Module,
    sites: str | Sequence[str] | Mapping[str, Any] = 'auto',
) -> list[GateSite]:
    """The sites of a backbone, in the order of its modules.

    A layer's output channels are a site if all of them arrive, unmixed and
    not summed with others, at the inputs of other conv and linear layers.
    Where they arrive is found by trying (:mod:`fgc_mm.sites.flow`): a change
    in one channel is seen where it goes, whatever code lies between.

    Args:
        backbone: The network to be gated.
        sites: ``'auto'`` for every site that can be found; shell patterns on
            site names (the producing layer's path), e.g. ``['layer3.*']``;
            or ``dict(type='auto', image_size=..., seconds=60,
            residual=False, every_conv=False, patterns=None)``, where the
            size is a number or (H, W) for a backbone that takes one only,
            the search ends with an error after so many seconds, and
            ``residual=True`` also gates layers in front of a residual sum,
            where their branch ends. ``every_conv=True`` gates, beside
            those, a depthwise conv apart from the conv before it, and the
            last conv. ``patterns`` chooses among what is found so.

    Raises:
        FGCError: The backbone cannot be traced, has no site, or takes too
            long; or a pattern matches no site.
    """
    options = _options(sites)
    kinds = Kinds(options['residual'], options['every_conv'])
    with _time_limit(backbone, options['seconds']):
        found = _search(backbone, options['image_size'], kinds)
    if not found:
        raise FGCError(_no_site(backbone))
    patterns = options['patterns'] if isinstance(sites, Mapping) else sites
    if patterns is None or patterns == 'auto':
        return found
    names = match_names(patterns, [s.name for s in found], 'the site pattern')
    return [site for site in found if site.name in names]


def _options(sites: str | Sequence[str] | Mapping[str, Any]) -> dict:
    options = dict(
        type='auto', image_size=None, seconds=60, residual=False,
        every_conv=False, patterns=None,
    )  # fmt: skip
    known = set(options)
    if isinstance(sites, Mapping):
        options.update(sites)
        if set(options) != known or options['type'] != 'auto':
            raise FGCError(
                f'sites={dict(sites)} is not understood; write '
                "dict(type='auto', image_size=..., seconds=..., "
                'residual=..., every_conv=..., patterns=[...]).'
            )
    _check_numbers(options['image_size'], options['seconds'])
    return options


def _check_numbers(size: Any, seconds: Any) -> None:
    pair = size if isinstance(size, Sequence) else (size, size)
    whole = len(pair) == 2 and all(isinstance(s, int) and s > 0 for s in pair)
    if size is not None and not whole:
        raise FGCError(
            f'image_size={size!r} is no size of an image; write a positive '
            'number of pixels, or (height, width).'
        )
    if not isinstance(seconds, (int, float)) or not seconds > 0:
        raise FGCError(
            f'seconds={seconds!r} is no time; write a positive number.'
        )


def _search(
    backbone: nn.Module, size: int | Sequence[int] | None, kinds: Kinds
) -> list[GateSite]:
    with CutNetwork(backbone) as cut:
        images = _accepted(cut, size)
        trace = Trace(cut, images, modules=kinds.residual)
        per_image = _per_image(cut, images)
        return SiteSearch(backbone, trace, per_image, kinds).sites()


def _per_image(cut: CutNetwork, images: Tensor) -> set[str]:
    """Dense layers that see one item per image, here and on larger images."""
    double = torch.cat([images, images])
    larger = images.repeat(2, 1, 2, 2)
    items = Items()
    cut.run(double, items)
    with suppress(FGCError):  # takes one size only
        cut.run(larger, items)
    return {name for name, sizes in items.sizes.items() if sizes == {2}}


def small_images(
    backbone: nn.Module, size: int | Sequence[int] | None = None
) -> Tensor:
    """A random image that the backbone accepts; (1, C, H, W).

    Args:
        backbone: Any.
        size: Of the image; by default a small one, else what the backbone
            names, else a usual one.

    Raises:
        FGCError: The backbone accepts none of them.
    """
    with CutNetwork(backbone) as cut:
        return _accepted(cut, size)


def _accepted(cut: CutNetwork, size: int | Sequence[int] | None) -> Tensor:
    named = getattr(cut.backbone, 'img_size', None)
    sizes = [size] if size else [SMALL, named, *USUAL]
    shapes = [
        (channels, *((s, s) if isinstance(s, int) else s))
        for s in filter(None, sizes)
        for channels in dict.fromkeys((_first_channels(cut.backbone), 3))
    ]
    for shape in shapes[:-1]:
        with suppress(FGCError):
            return _tried(cut, shape)
    return _tried(cut, shapes[-1])


def _tried(cut: CutNetwork, shape: tuple[int, ...]) -> Tensor:
    like = next(cut.backbone.parameters())
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, *shape, generator=generator).to(like)
    cut.run(image, Items())
    return image


def _first_channels(backbone: nn.Module) -> int:
    convs = (m for m in backbone.modules() if isinstance(m, nn.Conv2d))
    return next((conv.in_channels for conv in convs), 3)


def _no_site(backbone: nn.Module) -> str:
    kind = type(backbone).__name__
    if any(hasattr(m, 'switch_to_deploy') for m in backbone.modules()):
        return (
            f'{kind} has no site, since every conv is summed with the '
            'parallel branches that are merged into it for deployment; gate '
            'the merged network (deploy=True), or every branch before the '
            "sum: sites=dict(type='auto', residual=True)."
        )
    return (
        f'{kind} has no layer whose output channels reach other layers '
        'without a residual sum or a layer that mixes channels, so there is '
        'nothing to gate; choose another backbone, or gate what goes into '
        "the sums: sites=dict(type='auto', residual=True)."
    )


@contextmanager
def _time_limit(backbone: nn.Module, seconds: float) -> Iterator[None]:
    """Bound the search, where the platform and the thread allow it."""
    main = threading.current_thread() is threading.main_thread()
    if not main or not hasattr(signal, 'setitimer'):
        yield
        return

    def stop(*_: Any) -> None:
        raise TimeoutError

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except TimeoutError:
        raise FGCError(
            f'the search for sites in {type(backbone).__name__} took more '
            f'than {seconds:g} s; allow more with sites=dict('
            "type='auto', seconds=...)."
        ) from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
