"""From firing statistics to the channels that are removed and gated."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from fgc_mm.deploy.compaction.per_channel_layers import (
    per_channel_layers,
    positions_of,
)
from fgc_mm.deploy.compaction.removed_channels import RemovedChannels
from fgc_mm.deploy.firing import SiteFiring
from fgc_mm.errors import FGCError
from fgc_mm.models import ChannelMap, GatedBackbone
from fgc_mm.models.channel_map import SiteChannels
from fgc_mm.sites.layer_channels import (
    find_separate_depthwise,
    is_depthwise,
    layer_widths,
)
from fgc_mm.sites.site import GateSite

# A conv with one channel and one group would look like a depthwise conv.
MIN_CHANNELS = 2


class ChannelRemoval:
    """Turns firing statistics into a channel map.

    Args:
        backbone: The gated network.
        firing: Its statistics, site by site.
        tolerance: As in :func:`fgc_mm.deploy.compact`.

    Attributes:
        refused: Sites that cannot lose a channel although some are never
            open, and why.
        removed: Channels of every site that can be removed.
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
        self._per_channel_layers = per_channel_layers(
            self._plain, backbone.sites
        )
        self.refused: dict[str, str] = {}
        self.removed = {
            name: self._removable(site) for name, site in self._sites.items()
        }

    def channel_map(
        self,
        whole: Collection[str] = (),
        unshrunk: Collection[str] = (),
    ) -> ChannelMap:
        """What remains.

        Args:
            whole: Sites that keep all channels and their whole gate.
            unshrunk: Sites that keep all channels; those that are never open
                are always closed.
        """
        removed_channels = {
            name: [] if name in whole or name in unshrunk else channels
            for name, channels in self.removed.items()
        }
        sites = {
            name: self._site_channels(name, channels, name in whole)
            for name, channels in removed_channels.items()
        }
        channel_map = self.of_layers(removed_channels).channel_map(self._plain)
        return replace(channel_map, sites=sites)

    def of_layers(
        self, removed_channels: Mapping[str, Sequence[int]]
    ) -> RemovedChannels:
        """The channels that layers lose without some channels of sites."""
        outputs: defaultdict[str, set[int]] = defaultdict(set)
        inputs: defaultdict[str, set[int]] = defaultdict(set)
        for name, channels in removed_channels.items():
            if not channels:
                continue
            site = self._sites[name]
            writers = [*site.outputs, *self._per_channel_layers[name]]
            for side, layers in ((outputs, writers), (inputs, site.consumers)):
                for layer in layers:
                    positions = positions_of(layer, site.channels)
                    gone = torch.isin(positions, torch.tensor(channels))
                    side[layer.path] |= {*gone.nonzero().flatten().tolist()}
        return RemovedChannels(outputs, inputs)

    def _site_channels(
        self, name: str, removed_channels: Sequence[int], whole: bool
    ) -> SiteChannels:
        channels = range(self._sites[name].channels)
        if whole:
            return SiteChannels(tuple(channels), tuple(channels))
        never = self._firing[name].never(self._tolerance).tolist()
        always = self._firing[name].always(self._tolerance).tolist()
        kept = [c for c in channels if c not in set(removed_channels)]
        return SiteChannels(
            tuple(kept),
            tuple(c for c in kept if not never[c] and not always[c]),
            tuple(c for c in kept if never[c]),
        )

    def _removable(self, site: GateSite) -> list[int]:
        """Channels that are never open and can be removed."""
        never = self._firing[site.name].never(self._tolerance)
        removed_channels = never.nonzero().flatten().tolist()
        if removed_channels and site.branch_end is not None:
            self.refused[site.name] = 'its channels go into a residual sum'
            return []
        readers = [layer_of_site.path for layer_of_site in site.consumers]
        alone = find_separate_depthwise(self._plain, site.producer, readers)
        if removed_channels and alone is not None:
            self.refused[site.name] = (
                f'{alone} is a depthwise conv with a gate of its own'
            )
            return []
        removed_channels = self._balance_groups(
            site, removed_channels[: max(0, site.channels - MIN_CHANNELS)]
        )
        if not removed_channels and never.any():
            self.refused.setdefault(
                site.name, 'grouped convs must lose equally many per group'
            )
        return removed_channels

    def _balance_groups(
        self, site: GateSite, removed_channels: list[int]
    ) -> list[int]:
        """Equally many per group where a grouped conv reads or writes them."""
        for layer_of_site in (*site.outputs, *site.consumers):
            layer = self._plain.get_submodule(layer_of_site.path)
            groups = layer_widths(layer)[2]
            if groups == 1 or is_depthwise(layer) or not removed_channels:
                continue
            removed_channels = _equally_per_group(
                positions_of(layer_of_site, site.channels),
                groups,
                removed_channels,
            )
        removed = self.of_layers({site.name: removed_channels})
        try:
            removed.channel_map(self._plain)
        except FGCError:  # several convs conflict
            return []
        return removed_channels


def _equally_per_group(
    positions: Tensor, groups: int, removed_channels: list[int]
) -> list[int]:
    """The first channels of each group, as many as the smallest group has."""
    group_of = {
        channel: index * groups // len(positions)
        for index, channel in enumerate(positions.tolist())
    }
    each = [
        [c for c in removed_channels if group_of.get(c) == g]
        for g in range(groups)
    ]
    fewest = min(map(len, each))
    return sorted(c for group in each for c in group[:fewest])
