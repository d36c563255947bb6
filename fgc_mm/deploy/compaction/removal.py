"""From firing statistics to the channels that are removed and gated."""

from collections.abc import Collection, Iterable, Sequence

import torch
from torch import Tensor

from fgc_mm.deploy.compaction.between import norms_of, positions_of
from fgc_mm.deploy.firing import SiteFiring
from fgc_mm.errors import FGCError
from fgc_mm.models import ChannelMap, GatedBackbone
from fgc_mm.models.channel_map import SiteChannels
from fgc_mm.sites.layout import (
    find_separate_depthwise,
    is_depthwise,
    layer_widths,
)
from fgc_mm.sites.site import GateSite, SiteLayer

# A conv with one channel and one group would look like a depthwise conv.
LEAST = 2


class Removal:
    """Turns firing statistics into a channel map.

    Args:
        backbone: The gated network.
        firing: Its statistics, site by site.
        tolerance: As in :func:`fgc_mm.deploy.compact`.

    Attributes:
        refused: Sites that cannot lose a channel although some are never
            open, and why.
    """

    def __init__(
        self,
        backbone: GatedBackbone,
        firing: Sequence[SiteFiring],
        tolerance: float,
    ) -> None:
        self._plain = backbone.backbone
        self._sites = {site.name: site for site in backbone.sites}
        self._firing = {f.site: f for f in firing}
        self._tolerance = tolerance
        self._norms = norms_of(self._plain, backbone.sites)
        self.refused: dict[str, str] = {}
        self._gone = {
            name: self._removable(site) for name, site in self._sites.items()
        }

    def gone(self, name: str) -> list[int]:
        """Channels of a site that are removed."""
        return self._gone[name]

    def channel_map(
        self,
        whole: Collection[str] = (),
        unshrunk: Collection[str] = (),
    ) -> ChannelMap:
        """The channel map.

        Args:
            whole: Sites that stay as they are, with their whole gate.
            unshrunk: Sites that keep their channels; those that are never
                open are closed.
        """
        gone = {
            name: [] if name in whole or name in unshrunk else channels
            for name, channels in self._gone.items()
        }
        sites = {
            name: self._site_channels(name, gone[name], name in whole)
            for name in self._sites
        }
        outputs: dict[str, Tensor] = {}
        inputs: dict[str, Tensor] = {}
        for name, channels in gone.items():
            if channels:
                site = self._sites[name]
                writers = [*site.outputs, *self._norms[name]]
                _strike(outputs, writers, site, channels)
                _strike(inputs, site.consumers, site, channels)
        return ChannelMap.of(
            self._plain, _numbers(outputs), _numbers(inputs), sites
        )

    def left_inputs(self, name: str) -> dict[str, Tensor]:
        """For each reader of a site, which inputs it keeps; bool."""
        left: dict[str, Tensor] = {}
        site = self._sites[name]
        _strike(left, site.consumers, site, self._gone[name])
        return left

    def _site_channels(
        self, name: str, gone: Sequence[int], whole: bool
    ) -> SiteChannels:
        channels = range(self._sites[name].channels)
        if whole:
            return SiteChannels(tuple(channels), tuple(channels))
        never = self._firing[name].never(self._tolerance).tolist()
        always = self._firing[name].always(self._tolerance).tolist()
        kept = [c for c in channels if c not in set(gone)]
        return SiteChannels(
            tuple(kept),
            tuple(c for c in kept if not never[c] and not always[c]),
            tuple(c for c in kept if never[c]),
        )

    def _removable(self, site: GateSite) -> list[int]:
        """Channels that are never open and can be removed."""
        never = self._firing[site.name].never(self._tolerance)
        gone = never.nonzero().flatten().tolist()
        if gone and site.branch_end is not None:
            self.refused[site.name] = 'its channels go into a residual sum'
            return []
        readers = [member.path for member in site.consumers]
        alone = find_separate_depthwise(self._plain, site.producer, readers)
        if gone and alone is not None:
            self.refused[site.name] = (
                f'{alone} is a depthwise conv with a gate of its own'
            )
            return []
        gone = self._balanced(site, gone[: max(0, site.channels - LEAST)])
        if not gone and never.any():
            self.refused.setdefault(
                site.name, 'grouped convs must lose equally many per group'
            )
        return gone

    def _balanced(self, site: GateSite, gone: list[int]) -> list[int]:
        """Equally many per group where a grouped conv reads or writes them."""
        for member in (*site.outputs, *site.consumers):
            layer = self._plain.get_submodule(member.path)
            groups = layer_widths(layer)[2]
            if groups == 1 or is_depthwise(layer) or not gone:
                continue
            gone = _evenly(positions_of(member, site.channels), groups, gone)
        return gone if self._even(site, gone) else []

    def _even(self, site: GateSite, gone: list[int]) -> bool:
        """Whether all groups stay equal; several convs may conflict."""
        outputs: dict[str, Tensor] = {}
        inputs: dict[str, Tensor] = {}
        _strike(outputs, site.outputs, site, gone)
        _strike(inputs, site.consumers, site, gone)
        try:
            ChannelMap.of(self._plain, _numbers(outputs), _numbers(inputs))
        except FGCError:
            return False
        return True


def _strike(
    left: dict[str, Tensor],
    members: Iterable[SiteLayer],
    site: GateSite,
    gone: Sequence[int],
) -> None:
    """Remove a site's channels from the kept channels of some layers."""
    for member in members:
        positions = positions_of(member, site.channels)
        stays = ~torch.isin(positions, torch.tensor(gone))
        left[member.path] = left.get(member.path, stays) & stays


def _numbers(left: dict[str, Tensor]) -> dict[str, list[int]]:
    return {
        path: stays.nonzero().flatten().tolist()
        for path, stays in left.items()
    }


def _evenly(positions: Tensor, groups: int, gone: list[int]) -> list[int]:
    """The first channels of each group, as many as the smallest group has."""
    group_of = {}
    for place, channel in enumerate(positions.tolist()):
        group_of[channel] = place * groups // len(positions)
    each = [[c for c in gone if group_of.get(c) == g] for g in range(groups)]
    fewest = min(map(len, each))
    return sorted(c for group in each for c in group[:fewest])
