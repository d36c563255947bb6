"""Finds the sites of a backbone that the ``sites`` option selects."""

from collections.abc import Container, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fgc_mm.errors import FGCError
from fgc_mm.sites.batch_sizes import batch_sizes
from fgc_mm.sites.channel_probe import ChannelProbe
from fgc_mm.sites.found_sites import FoundSites
from fgc_mm.sites.image_size import accepted_images
from fgc_mm.sites.large_values import unmixed_at_large_values
from fgc_mm.sites.network_fingerprint import network_fingerprint
from fgc_mm.sites.patterns import match_names
from fgc_mm.sites.probed_backbone import ProbedBackbone
from fgc_mm.sites.site import GateSite
from fgc_mm.sites.site_cache import cached_or_search
from fgc_mm.sites.site_rules import SiteSearch
from fgc_mm.sites.work_limit import LIMIT, TooMuchWork, WorkLimit, one_thread

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
    This is determined by probing (:mod:`fgc_mm.sites.channel_flow`):
    channels are changed, and the change is observed wherever it arrives.

    Args:
        backbone: The network to be gated.
        sites: ``'auto'`` for every site that can be found; shell patterns on
            site names (the producing layer's path), e.g. ``['layer3.*']``;
            or ``dict(type='auto', image_size=..., residual=False,
            every_conv=False, patterns=None, max_work=2e11)``.
            ``image_size``: a number of pixels or (H, W); default: a size
            that the backbone accepts. ``residual=True``: also gate layers
            before a residual sum, at the end of their branch.
            ``every_conv=True``: as ``residual=True``, and also gate
            depthwise convs separately from the conv before them, and the
            last conv. ``patterns``: select among the sites found.
            ``max_work``: limit on the elements that the search computes
            (:class:`fgc_mm.sites.work_limit.WorkLimit`).

    Raises:
        FGCError: The backbone cannot be probed, has no site, or exceeds
            ``max_work``; or a pattern matches no site.

    Example:
        >>> from torch import nn
        >>> net = nn.Sequential(
        ...     nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
        >>> [(site.name, site.channels) for site in find_sites(net)]
        [('0', 8)]
    """
    return select_sites(search_sites(backbone, sites).sites, sites)


def search_sites(
    backbone: nn.Module,
    sites: str | Sequence[str] | Mapping[str, Any] = 'auto',
) -> FoundSites:
    """Like :func:`find_sites`, but all sites regardless of patterns.

    The result is cached: a network is not searched again if it was searched
    in this process or on another rank, or if a checkpoint that this process
    has loaded contains its sites.
    """
    options = _options(sites)
    used = {k: options[k] for k in ('image_size', 'residual', 'every_conv')}
    key = network_fingerprint(backbone, used)
    found = cached_or_search(
        key, backbone, lambda: _bounded_search(backbone, options, key)
    )
    if not found.sites:
        raise FGCError(_no_site(backbone))
    return found


def select_sites(
    found: Sequence[GateSite], sites: str | Sequence[str] | Mapping[str, Any]
) -> list[GateSite]:
    """The found sites that the ``sites`` option selects.

    Raises:
        FGCError: A pattern matches no site.
    """
    patterns = sites.get('patterns') if isinstance(sites, Mapping) else sites
    if patterns is None or patterns == 'auto':
        return list(found)
    names = match_names(patterns, [s.name for s in found], 'the site pattern')
    return [site for site in found if site.name in names]


def _options(sites: str | Sequence[str] | Mapping[str, Any]) -> dict:
    given = dict(sites) if isinstance(sites, Mapping) else {}
    options = {**DEFAULTS, **given}
    if set(options) != set(DEFAULTS) or options['type'] != 'auto':
        raise FGCError(
            f'sites={given} has unknown keys or another type; write '
            "dict(type='auto', image_size=..., max_work=..., residual=..., "
            'every_conv=..., patterns=[...]).'
        )
    _check_numbers(options['image_size'], options['max_work'])
    return options


def _check_numbers(size: Any, work: Any) -> None:
    pair = size if isinstance(size, Sequence) else (size, size)
    valid = len(pair) == 2 and all(isinstance(s, int) and s > 0 for s in pair)
    if size is not None and not valid:
        raise FGCError(
            f'image_size={size!r} is not an image size; write a positive '
            'number of pixels, or (height, width).'
        )
    if not isinstance(work, (int, float)) or not work > 0:
        raise FGCError(
            f'max_work={work!r} is not a number of elements; write a positive '
            'number.'
        )


def _bounded_search(
    backbone: nn.Module, options: Mapping[str, Any], key: str | None
) -> FoundSites:
    work = WorkLimit(options['max_work'])
    try:
        with one_thread(), ProbedBackbone(backbone, work) as probed:
            images = accepted_images(probed, options['image_size'])
            sites = _search(
                probed, images, options['residual'], options['every_conv']
            )
    except TooMuchWork:
        raise FGCError(
            f'the search for sites in {type(backbone).__name__} computed more '
            f'than {options["max_work"]:g} elements; allow more with '
            "sites=dict(type='auto', max_work=...)."
        ) from None
    channels, height, width = images.shape[1:]
    return FoundSites(key, (channels, height, width), tuple(sites))


def _search(
    probed: ProbedBackbone, images: Tensor, before_sum: bool, every_conv: bool
) -> list[GateSite]:
    residual = before_sum or every_conv
    try:
        probe = ChannelProbe(probed, images, modules=residual)
    except FGCError:  # the network runs, but not on the probe's values
        probe = ChannelProbe(probed, images, residual, computed=True)
    layers = probe.shapes.keys()
    per_image = _per_image(probed, images, layers)
    check = partial(unmixed_at_large_values, probed, images, layers)
    return SiteSearch(
        probed.backbone, probe, per_image, residual, every_conv, check
    ).sites()


def _per_image(
    probed: ProbedBackbone, images: Tensor, layers: Container[str]
) -> set[str]:
    """Layers with batch size N for N images, at two image sizes.

    Raises:
        FGCError: A layer that is not in ``layers`` runs for these images.
    """
    sizes = batch_sizes(probed, torch.cat([images, images]))
    for name in sizes:
        if name not in layers:
            raise FGCError(probed.varying_layer(name, images))
    with suppress(FGCError):  # the backbone may accept one size only
        larger = batch_sizes(probed, images.repeat(2, 1, 2, 2))
        for name, found in larger.items():
            sizes.setdefault(name, set()).update(found)
    return {name for name, found in sizes.items() if found == {2}}


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
        'without a residual sum or a layer that mixes channels, so there '
        'is nothing to gate; choose another backbone, or gate the '
        "residual branches: sites=dict(type='auto', residual=True)."
    )
