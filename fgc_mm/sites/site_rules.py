"""Decides which layers can be gated (sites), from the channel flow."""

from collections import Counter
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import replace

from torch import Tensor, nn

from fgc_mm.sites.channel_flow import MIXED, NONE, Arrival, ChannelFlow
from fgc_mm.sites.channel_probe import BrokenProbe, ChannelProbe, ProbePoint
from fgc_mm.sites.every_conv import split_depthwise
from fgc_mm.sites.layer_channels import (
    channels_last,
    is_depthwise,
    layer_widths,
    macs_per_channel_pair,
)
from fgc_mm.sites.site import GateSite, Positions, SiteLayer

# output channels of a layer per channel of its site (2: gated linear units,
# split attention)
FOLDS = (1, 2)


class SiteSearch:
    """Finds the conv and linear layers whose output channels can be gated.

    Args:
        backbone: The network.
        probe: Probes the network.
        per_image: Names of the layers whose batch size equals the number of
            images.
        residual: Also search for sites that are masked at the end of their
            branch, before a sum.
        every_conv: Also search for depthwise convs, as sites separate from
            the conv before them, and for layers whose channels leave the
            backbone.
        check: Returns those of the found sites whose channels are not mixed
            for other values either (:mod:`fgc_mm.sites.large_values`).
    """

    def __init__(
        self,
        backbone: nn.Module,
        probe: ChannelProbe,
        per_image: set[str],
        residual: bool,
        every_conv: bool,
        check: Callable[[list[GateSite]], list[GateSite]],
    ) -> None:
        self._check = check
        self._backbone = backbone
        self._probe = probe
        self._residual = residual
        self._every_conv = every_conv
        self._runs_once = {
            name
            for name in per_image
            if probe.runs[ProbePoint('input', name)] == 1
        }
        self._flow = ChannelFlow(probe, every=residual)
        self._macs = _layer_macs(backbone, probe)
        self._total = probe.macs_outside_layers() + sum(
            macs
            for path, macs in self._macs.items()
            if not is_depthwise(backbone.get_submodule(path))
        )
        self._order = {
            name: i for i, (name, _) in enumerate(backbone.named_modules())
        }

    def sites(self) -> list[GateSite]:
        """All sites, in the order of the backbone's modules."""
        found = self._check(list(self._find_all()))
        if self._every_conv:
            found = [part for site in found for part in self._split(site)]
        return sorted(found, key=lambda site: self._order[site.name])

    def _find_all(self) -> Iterator[GateSite]:
        taken: set[str] = set()
        for name in self._probe.sources:
            if name not in self._runs_once or name in taken:
                continue
            site = None
            if self._may_be_internal(name):
                folds = self._folds(name)
                found = (self._internal_site(name, fold) for fold in folds)
                site = next(filter(None, found), None)
            if site is None and self._residual:
                site = self._residual_site(name)
            if site is not None:
                taken |= {member.path for member in site.outputs}
                yield site

    def _folds(self, name: str) -> list[int]:
        return [f for f in FOLDS if self._probe.sources[name] % f == 0]

    def _may_be_internal(self, name: str) -> bool:
        """Cheap check before channels are identified.

        The layer's channels meet those of at most one other source, and
        every input that they reach can be masked.
        """
        reached = {
            point: others
            for point, others in self._flow.reached(name).items()
            if not point.kind.startswith('module')
        }
        other_sources = frozenset().union(*reached.values())
        return len(other_sources) <= 1 and all(map(self._maskable, reached))

    def _internal_site(self, name: str, fold: int) -> GateSite | None:
        """A site whose channels reach only inputs of conv or linear layers.

        No residual sum is on the way.
        """
        arrivals = self._arrivals(name, fold)
        if not all(map(self._gateable, arrivals, arrivals.values())):
            return None
        others = frozenset().union(*(a.others for a in arrivals.values()))
        channels = self._probe.sources[name] // fold
        outputs = [
            SiteLayer(
                name, _compact_positions([*range(channels)] * fold, channels)
            )
        ]
        if others:
            scale = self._scaling_layer(name, arrivals, others, channels)
            if scale is None:
                return None
            outputs.append(scale)
        return self._site(name, channels, arrivals, outputs)

    def _arrivals(self, name: str, fold: int) -> dict[ProbePoint, Arrival]:
        return {
            point: arrival
            for point, arrival in self._flow.arrivals(name, fold).items()
            if not point.kind.startswith('module')
        }

    def _gateable(self, point: ProbePoint, arrival: Arrival) -> bool:
        """Whether all channels arrive unmixed at a point to be masked."""
        return arrival.unmixed and self._maskable(point)

    def _maskable(self, point: ProbePoint) -> bool:
        """Whether a mask can be applied at this point."""
        if point.kind == 'end':
            return False
        if point.kind == 'depthwise':
            return self._probe.runs[point] == 1
        return point.path in self._runs_once

    def _scaling_layer(
        self,
        name: str,
        arrivals: dict[ProbePoint, Arrival],
        others: frozenset[str],
        channels: int,
    ) -> SiteLayer | None:
        """The layer that scales the channels (squeeze-excite), if any.

        It must reach only this site's channels. The product must be zero
        where they are zero, which excludes addition.
        """
        (other, *more) = others
        if more or other not in self._runs_once:
            return None
        try:
            nonzero = self._probe.nonzero_when_zeroed(zeroed=name)
        # the network fails with zeroed channels, so it would fail with
        # closed ones
        except BrokenProbe:
            return None
        for fold in self._folds(other):
            positions = self._scaled_channels(other, fold, arrivals, nonzero)
            if positions is not None:
                return SiteLayer(
                    other, _compact_positions(positions * fold, channels)
                )
        return None

    def _scaled_channels(
        self,
        other: str,
        fold: int,
        arrivals: dict[ProbePoint, Arrival],
        nonzero: dict[ProbePoint, Tensor],
    ) -> list[int] | None:
        """For each channel of a scaling layer, the channel that it scales."""
        positions = [NONE] * (self._probe.sources[other] // fold)
        for point, arrival in self._arrivals(other, fold).items():
            if point not in arrivals:
                return None
            for scale, channel, is_nonzero in zip(
                arrival.positions,
                arrivals[point].positions,
                nonzero[point].tolist(),
            ):
                if scale == NONE:
                    continue
                if scale == MIXED or channel < 0 or is_nonzero:
                    return None
                if positions[scale] not in (NONE, channel):
                    return None
                positions[scale] = channel
        return positions

    def _residual_site(self, name: str) -> GateSite | None:
        """A site that is masked at the end of its branch.

        The end is before a residual sum, or (every conv) the backbone's end.
        """
        arrivals = self._flow.arrivals(name)
        if not any(
            arrival.others or (self._every_conv and point.kind == 'end')
            for point, arrival in arrivals.items()
            if point.kind in ('input', 'end')
        ):
            return None
        maskable = {
            point: arrival
            for point, arrival in arrivals.items()
            if point.kind in ('input', 'depthwise')
            and not arrival.others
            and self._gateable(point, arrival)
        }
        maskable = {
            point: arrival
            for point, arrival in maskable.items()
            if point.kind == 'input' or self._is_masked_after(point, maskable)
        }
        channels = self._probe.sources[name]
        end = self._branch_end(name, arrivals)
        return self._site(name, channels, maskable, [SiteLayer(name)], end)

    def _is_masked_after(
        self, conv: ProbePoint, masked: Container[ProbePoint]
    ) -> bool:
        """Whether all outputs of a depthwise conv arrive at masked inputs.

        A depthwise conv outputs its bias for a closed channel; a following
        norm over all channels, or a sum, would mix that into open channels.
        """
        try:
            reached = self._probe.points_affected_by(conv.path)
        except BrokenProbe:
            return False
        return all(
            point in masked
            for point in reached
            if point.kind in ('input', 'end')
        )

    def _branch_end(
        self, name: str, arrivals: dict[ProbePoint, Arrival]
    ) -> str:
        """The last module that all channels of the layer pass through.

        Their order is unchanged there.
        """
        last = channels_last(self._backbone.get_submodule(name))
        kind = 'module-last' if last else 'module'
        channels = self._probe.sources[name]
        in_order = Arrival(tuple(range(channels)), frozenset())
        for point in reversed(arrivals):
            if (
                point.kind == kind
                and arrivals[point] == in_order
                and self._probe.runs_once(point.path)
                and self._all_pass(name, point.path)
            ):
                return point.path
        return name

    def _all_pass(self, source: str, module: str) -> bool:
        """Whether all effects of a source pass through this module."""
        change = self._probe.whole(source)
        try:
            bypassing = self._probe.propagate(change, fixed=module)
        except BrokenProbe:
            return False
        return not any(
            flags.any()
            for point, flags in bypassing.items()
            if point.kind in ('input', 'end')
        )

    def _split(self, site: GateSite) -> list[GateSite]:
        def is_separable(path: str) -> bool:
            layer = self._backbone.get_submodule(path)
            return is_depthwise(layer) and self._all_pass(site.name, path)

        return [
            replace(part, macs_share=self._macs_share(part))
            for part in split_depthwise(site, is_separable)
        ]

    def _macs_share(self, site: GateSite) -> float:
        """Fraction of the MACs in the layers whose width the site reduces."""
        paths = {member.path for member in (*site.consumers, *site.outputs)}
        return sum(self._macs[path] for path in paths) / self._total

    def _site(
        self,
        name: str,
        channels: int,
        arrivals: dict[ProbePoint, Arrival],
        outputs: list[SiteLayer],
        branch_end: str | None = None,
    ) -> GateSite | None:
        consumers = self._layers('input', channels, arrivals)
        if not consumers and branch_end is None:
            return None
        outputs = [*outputs, *self._layers('depthwise', channels, arrivals)]
        reads = layer_widths(self._backbone.get_submodule(name))[0]
        site = GateSite(
            name,
            tuple(consumers),
            tuple(sorted(outputs, key=self._order_of)),
            reads,
            channels,
            branch_end,
        )
        return replace(site, macs_share=self._macs_share(site))

    def _layers(
        self, kind: str, channels: int, arrivals: dict[ProbePoint, Arrival]
    ) -> list[SiteLayer]:
        layers = [
            SiteLayer(
                point.path, _compact_positions(arrival.positions, channels)
            )
            for point, arrival in arrivals.items()
            if point.kind == kind
        ]
        return sorted(layers, key=self._order_of)

    def _order_of(self, member: SiteLayer) -> int:
        return self._order[member.path]


def _compact_positions(positions: Sequence[int], channels: int) -> Positions:
    """The positions; ``None`` if they are 0..C-1."""
    in_order = list(positions) == [*range(channels)]
    return None if in_order else tuple(positions)


def _layer_macs(backbone: nn.Module, probe: ChannelProbe) -> Counter[str]:
    """MACs of every conv and linear layer, for one image."""
    macs: Counter[str] = Counter()
    for path, shape in probe.shapes.items():
        layer = backbone.get_submodule(path)
        reads, writes, groups = layer_widths(layer)
        kind = 'depthwise' if is_depthwise(layer) else 'input'
        runs = probe.runs[ProbePoint(kind, path)]
        macs[path] = (
            runs
            * macs_per_channel_pair(layer, shape)
            * reads
            * writes
            // groups
        )
    return macs
