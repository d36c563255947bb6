"""From a backbone and a user's wish to the list of sites."""

import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from fgc_mm.errors import FGCError
from fgc_mm.sites.cut import CutNetwork
from fgc_mm.sites.every_conv import Kinds
from fgc_mm.sites.fingerprint import fingerprint
from fgc_mm.sites.found import Found
from fgc_mm.sites.image_size import accepted_images
from fgc_mm.sites.items import Items
from fgc_mm.sites.patterns import match_names
from fgc_mm.sites.reuse import reused
from fgc_mm.sites.search import SiteSearch
from fgc_mm.sites.site import GateSite
from fgc_mm.sites.trace import Trace
from fgc_mm.sites.work import LIMIT, TooMuchWork, Work, one_thread

DEFAULTS = dict(
    type='auto',
    image_size=None,
    max_work=LIMIT,
    residual=False,
    every_conv=False,
    patterns=None,
)


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
            or ``dict(type='auto', image_size=..., residual=False,
            every_conv=False, patterns=None, max_work=2e11)``, where the size
            is a number or (H, W), by default one that the backbone accepts;
            ``residual=True`` also gates layers in front of a residual sum,
            where their branch ends; ``every_conv=True`` gates, beside those,
            a depthwise conv apart from the conv before it, and the last
            conv; ``patterns`` chooses among what is found so; and the search
            ends with an error when its passes have computed so many elements
            (:class:`fgc_mm.sites.work.Work`).

    Raises:
        FGCError: The backbone cannot be traced, has no site, or takes too
            much work; or a pattern matches no site.
    """
    return chosen(search_sites(backbone, sites).sites, sites)


def search_sites(
    backbone: nn.Module,
    sites: str | Sequence[str] | Mapping[str, Any] = 'auto',
) -> Found:
    """All sites, whatever the patterns; as :func:`find_sites` otherwise.

    A network that was searched before, in this process, in another rank, or
    in the run that wrote a checkpoint which was read, is not searched again.
    """
    options = _options(sites)
    matter = {k: options[k] for k in ('image_size', 'residual', 'every_conv')}
    key = fingerprint(backbone, matter)
    found = reused(
        key, backbone, lambda: _bounded_search(backbone, options, key)
    )
    if not found.sites:
        raise FGCError(_no_site(backbone))
    return found


def chosen(
    found: Sequence[GateSite], sites: str | Sequence[str] | Mapping[str, Any]
) -> list[GateSite]:
    """The found sites that a user wants.

    Raises:
        FGCError: A pattern matches none.
    """
    patterns = sites.get('patterns') if isinstance(sites, Mapping) else sites
    if patterns is None or patterns == 'auto':
        return list(found)
    names = match_names(patterns, [s.name for s in found], 'the site pattern')
    return [site for site in found if site.name in names]


def _options(sites: str | Sequence[str] | Mapping[str, Any]) -> dict:
    given = dict(sites) if isinstance(sites, Mapping) else {}
    if 'seconds' in given:
        del given['seconds']
        warnings.warn(
            'seconds=... in sites is ignored: the search for sites is bounded '
            'in work, which is the same on every machine; leave it out, or '
            'write max_work=...',
            FutureWarning,
            stacklevel=3,
        )
    options = {**DEFAULTS, **given}
    if set(options) != set(DEFAULTS) or options['type'] != 'auto':
        raise FGCError(
            f'sites={given} is not understood; write '
            "dict(type='auto', image_size=..., max_work=..., residual=..., "
            'every_conv=..., patterns=[...]).'
        )
    _check_numbers(options['image_size'], options['max_work'])
    return options


def _check_numbers(size: Any, work: Any) -> None:
    pair = size if isinstance(size, Sequence) else (size, size)
    whole = len(pair) == 2 and all(isinstance(s, int) and s > 0 for s in pair)
    if size is not None and not whole:
        raise FGCError(
            f'image_size={size!r} is no size of an image; write a positive '
            'number of pixels, or (height, width).'
        )
    if not isinstance(work, (int, float)) or not work > 0:
        raise FGCError(
            f'max_work={work!r} is no number of elements; write a positive '
            'number.'
        )


def _bounded_search(
    backbone: nn.Module,
    options: Mapping[str, Any],
    key: str | None,
) -> Found:
    work = Work(options['max_work'])
    try:
        with one_thread(), CutNetwork(backbone, work) as cut:
            images = accepted_images(cut, options['image_size'])
            kinds = Kinds(options['residual'], options['every_conv'])
            sites = _search(cut, images, kinds)
    except TooMuchWork:
        raise FGCError(
            f'the search for sites in {type(backbone).__name__} computed more '
            f'than {options["max_work"]:g} elements; allow more with '
            "sites=dict(type='auto', max_work=...)."
        ) from None
    return Found(key, tuple(images.shape[1:]), tuple(sites))


def _search(cut: CutNetwork, images: Tensor, kinds: Kinds) -> list[GateSite]:
    trace = Trace(cut, images, modules=kinds.residual)
    per_image = _per_image(cut, images)
    return SiteSearch(cut.backbone, trace, per_image, kinds).sites()


def _per_image(cut: CutNetwork, images: Tensor) -> set[str]:
    """Dense layers that see one item per image, here and on larger images."""
    double = torch.cat([images, images])
    larger = images.repeat(2, 1, 2, 2)
    items = Items()
    cut.run(double, items)
    with suppress(FGCError):  # takes one size only
        cut.run(larger, items)
    return {name for name, sizes in items.sizes.items() if sizes == {2}}


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
