"""Checks the sites of a search where all values are large."""

from collections.abc import Iterator, Mapping, Sequence, Set

import torch
from torch import Tensor, nn

from fgc_mm.errors import FGCError
from fgc_mm.sites.channel_probe import ChannelProbe, ProbePoint
from fgc_mm.sites.layer_channels import channels_last
from fgc_mm.sites.probed_backbone import ProbedBackbone
from fgc_mm.sites.site import GateSite, Positions

ROUNDS = 2


def unmixed_at_large_values(
    probed: ProbedBackbone,
    images: Tensor,
    layers: Set[str],
    sites: Sequence[GateSite],
) -> list[GateSite]:
    """The sites whose channels are not mixed where all values are large.

    In the search, channels that do not change are small or negative. So it
    does not find functions that mix channels only if several of them are
    large, such as one that clips the norm of all channels. Here all values
    are large, and a random half of the channels of every site is changed. At
    the inputs of the site's consumers, and at the end of its branch, the
    other half must stay the same.

    Args:
        probed: The network.
        images: (1, C, H, W).
        layers: The layers that ran in the search. If others run for large
            values, all sites are returned.
        sites: Found by the search.
    """
    ends = any(site.branch_end is not None for site in sites)
    generator = torch.Generator().manual_seed(0)
    mixed: set[str] = set()
    try:
        probe = ChannelProbe(probed, images, modules=ends, large=True)
        if probe.shapes.keys() != layers:
            return [*sites]
        for _ in range(ROUNDS):
            halves = {
                site.name: torch.randperm(site.channels, generator=generator)
                % 2
                for site in sites
            }
            for half in (0, 1):
                mixed |= _mixed(probed.backbone, probe, sites, halves, half)
    except FGCError:  # the network fails on such values: nothing is known
        pass
    return [site for site in sites if site.name not in mixed]


def _mixed(
    backbone: nn.Module,
    probe: ChannelProbe,
    sites: Sequence[GateSite],
    halves: Mapping[str, Tensor],
    half: int,
) -> set[str]:
    """Names of the sites whose other half changes, too."""
    change = {
        site.name: _half_of(halves[site.name], member.positions, half) == half
        for site in sites
        for member in site.outputs
        if member.path == site.name
    }
    changes = probe.propagate(change)
    return {
        site.name
        for site in sites
        for point, positions in _readers(backbone, site)
        if point in changes
        and changes[point][
            _half_of(halves[site.name], positions, half) != half
        ].any()
    }


def _readers(
    backbone: nn.Module, site: GateSite
) -> Iterator[tuple[ProbePoint, Positions]]:
    """Where the channels of a site are read, and their positions there."""
    for consumer in site.consumers:
        yield ProbePoint('input', consumer.path), consumer.positions
    if site.branch_end is not None:
        last = channels_last(backbone.get_submodule(site.name))
        kind = 'module-last' if last else 'module'
        yield ProbePoint(kind, site.branch_end), None


def _half_of(halves: Tensor, positions: Positions, half: int) -> Tensor:
    """The half of every channel of a layer; ``half`` if not the site's."""
    if positions is None:
        return halves
    index = torch.tensor(positions)
    return torch.where(index < 0, half, halves[index])
