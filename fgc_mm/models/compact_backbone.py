"""A gated backbone after compaction."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from torch import nn

from fgc_mm.errors import FGCError
from fgc_mm.gates import GroupedGate, PartialGate
from fgc_mm.gates.build import build_ungrouped_gate, split_group, with_widths
from fgc_mm.models.channel_map import ChannelMap, SiteChannels
from fgc_mm.models.channel_map_backbone import channel_map_backbone
from fgc_mm.models.gated_backbone import GatedBackbone
from fgc_mm.registry import MODELS
from fgc_mm.sites import GateSite


@MODELS.register_module()
class CompactBackbone(GatedBackbone):
    """A gated backbone without the channels that a channel map leaves out.

    ``tools/export/compact.py`` writes its config. The backbone is built with
    all channels and shrunk. Gates are built for the sites that still have a
    channel to decide, with outputs for these channels only. It is trained,
    tested and counted like any gated backbone.

    Args:
        backbone: As in :class:`GatedBackbone`: the whole network.
        gate: As in :class:`GatedBackbone`.
        channel_map: JSON file of a :class:`ChannelMap`, or the map.
        sites: As in :class:`GatedBackbone`; those without a gate in the map
            are left out.
        init_cfg: As in :class:`GatedBackbone`.

    Raises:
        FGCError: The map is for another network, or has no gate.
    """

    def __init__(
        self,
        backbone: dict | nn.Module,
        gate: dict,
        channel_map: str | ChannelMap,
        sites: str | Sequence[str] | Mapping[str, Any] = 'auto',
        init_cfg: dict | None = None,
    ) -> None:
        channel_map = ChannelMap.load(channel_map)
        self._gated = {
            name: site
            for name, site in channel_map.sites.items()
            if site.gated or site.closed
        }
        if not self._gated:
            raise FGCError(
                'the channel map leaves no gate for a CompactBackbone; use '
                "type='fgc_mm.ChannelMapBackbone'."
            )
        self._layers = channel_map.layers
        small = channel_map_backbone(backbone, channel_map)
        super().__init__(small, gate, sites, init_cfg)

    def _find_sites(
        self,
        backbone: nn.Module,
        sites: str | Sequence[str] | Mapping[str, Any],
    ) -> list[GateSite]:
        chosen: Any = sites if isinstance(sites, Mapping) else 'auto'
        found = {s.name: s for s in super()._find_sites(backbone, chosen)}
        for name, entry in self._gated.items():
            channels = found[name].channels if name in found else 'no'
            if channels != len(entry.kept):
                raise FGCError(
                    f'{name} is a site of {len(entry.kept)} channels in the '
                    f'channel map, and of {channels} in this network, but a '
                    'map only fits the network that it was made for; give '
                    'the config of that one.'
                )
        return [site for name, site in found.items() if name in self._gated]

    def _build_gate(self, gate: dict, site: GateSite) -> nn.Module:
        entry = self._gated[site.name]
        gate, group = split_group(gate)
        gate = with_widths(gate, self._original_channels(site))
        decisions = remaining_decisions(entry, group)
        gated = _decisions_for(decisions, entry.gated)
        whole: Any = None  # if no decision is gated, some are closed
        if gated:
            whole = build_ungrouped_gate(gate, site.in_channels, len(gated))
        if len(gated) < len(decisions):
            closed = _decisions_for(decisions, entry.closed)
            whole = PartialGate(whole, len(decisions), gated, closed)
        return (
            whole if group == 1 else GroupedGate(whole, [*map(len, decisions)])
        )

    def _original_channels(self, site: GateSite) -> int:
        """Number of channels that a site had in the whole network."""
        kept = self._layers.get(site.producer)
        if kept is None:
            return site.channels
        (layer,) = [m for m in site.outputs if m.path == site.producer]
        positions = layer.positions or range(site.channels)
        copies = sum(position >= 0 for position in positions) // site.channels
        return site.channels + (kept.widths[0] - len(kept.outputs)) // max(
            1, copies
        )


def remaining_decisions(
    entry: SiteChannels, group: int
) -> list[tuple[int, ...]]:
    """The remaining channels of a site, grouped by decision.

    Args:
        entry: What remains, in the whole network's channel indices.
        group: Channels that share a decision in the whole network.

    Returns:
        Neighbouring gated channels of one group together; every channel
        that is always open or closed separately.
    """
    gated = set(entry.gated)

    def decision(channel: int) -> tuple[bool, int]:
        return channel in gated, channel // (group if channel in gated else 1)

    return [tuple(run) for _, run in groupby(entry.kept, decision)]


def _decisions_for(
    decisions: Sequence[tuple[int, ...]], channels: Sequence[int]
) -> list[int]:
    """Indices of the decisions for these channels."""
    return [i for i, run in enumerate(decisions) if run[0] in channels]
