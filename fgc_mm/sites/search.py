"""From the flow of channels to sites."""

from collections import Counter
from collections.abc import Container, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from fgc_mm.sites.every_conv import Kinds, split_depthwise
from fgc_mm.sites.flow import NONE, SEVERAL, Arrival, Flow
from fgc_mm.sites.layout import (
    channels_last,
    is_depthwise,
    layer_widths,
    pair_macs,
)
from fgc_mm.sites.site import GateSite, Member, Positions
from fgc_mm.sites.trace import BrokenProbe, Place, Trace

FOLDS = (1, 2)  # output channels that one channel of a site may stand for


class SiteSearch:
    """Which dense layers' output channels can be gated.

    Args:
        backbone: The network.
        trace: Of the network.
        per_image: Dense layers that see one item per image.
        kinds: Of the sites that are wanted.
    """

    def __init__(
        self,
        backbone: nn.Module,
        trace: Trace,
        per_image: set[str],
        kinds: Kinds,
    ) -> None:
        self._backbone = backbone
        self._trace = trace
        self._kinds = kinds
        self._sound = {
            name for name in per_image if trace.runs[Place('input', name)] == 1
        }
        self._flow = Flow(trace, every=kinds.residual)
        self._macs = _dense_macs(backbone, trace)
        self._total = trace.macs_between() + sum(
            macs
            for path, macs in self._macs.items()
            if not is_depthwise(backbone.get_submodule(path))
        )
        self._order = {
            name: i for i, (name, _) in enumerate(backbone.named_modules())
        }

    def sites(self) -> list[GateSite]:
        """All sites, in the order of the backbone's modules."""
        found = list(self._found())
        if self._kinds.every_conv:
            found = [part for site in found for part in self._split(site)]
        return sorted(found, key=lambda site: self._order[site.name])

    def _found(self) -> Iterator[GateSite]:
        taken: set[str] = set()
        for name in self._trace.sources:
            if name not in self._sound or name in taken:
                continue
            site = None
            if self._may_be_internal(name):
                found = (self._internal(name, fold) for fold in FOLDS)
                site = next(filter(None, found), None)
            if site is None and self._kinds.residual:
                site = self._at_branch_end(name)
            if site is not None:
                taken |= {member.path for member in site.outputs}
                yield site

    def _may_be_internal(self, name: str) -> bool:
        """Whether it is worth the passes that tell channels apart."""
        reached = {
            place: others
            for place, others in self._flow.reached(name).items()
            if not place.kind.startswith('module')
        }
        met = frozenset().union(*reached.values())
        return len(met) <= 1 and all(map(self._readable, reached))

    def _internal(self, name: str, fold: int) -> GateSite | None:
        """A site whose channels reach dense layers only, and no sum."""
        arrivals = self._arrivals(name, fold)
        if not all(map(self._gateable, arrivals, arrivals.values())):
            return None
        others = frozenset().union(*(a.others for a in arrivals.values()))
        channels = self._trace.sources[name] // fold
        outputs = [Member(name, _short([*range(channels)] * fold, channels))]
        if others:
            scale = self._scale(name, arrivals, others, channels)
            if scale is None:
                return None
            outputs.append(scale)
        return self._site(name, channels, arrivals, outputs)

    def _arrivals(self, name: str, fold: int) -> dict[Place, Arrival]:
        if self._trace.sources[name] % fold:
            return {Place('end', ''): Arrival((SEVERAL,), frozenset())}
        return {
            place: arrival
            for place, arrival in self._flow.of(name, fold).items()
            if not place.kind.startswith('module')
        }

    def _gateable(self, place: Place, arrival: Arrival) -> bool:
        return arrival.unmixed and self._readable(place)

    def _readable(self, place: Place) -> bool:
        """Whether a mask can be applied to what arrives there."""
        if place.kind == 'end':
            return False
        if place.kind == 'depthwise':
            return self._trace.runs[place] == 1
        return place.path in self._sound

    def _scale(
        self,
        name: str,
        arrivals: dict[Place, Arrival],
        others: frozenset[str],
        channels: int,
    ) -> Member | None:
        """The layer that scales the channels (squeeze-excite), if one does.

        It must arrive at these channels only, and leave nothing where they
        are zero: so it multiplies, and does not add.
        """
        (other, *more) = others
        if more or other not in self._sound:
            return None
        try:
            left = self._trace.nonzero(blank=name)
        except BrokenProbe:  # a closed channel would break it as well
            return None
        for fold in FOLDS:
            positions = self._scaled(other, fold, arrivals, left)
            if positions is not None:
                return Member(other, _short(positions * fold, channels))
        return None

    def _scaled(
        self,
        other: str,
        fold: int,
        arrivals: dict[Place, Arrival],
        left: dict[Place, Tensor],
    ) -> list[int] | None:
        """The channel that each of a scaling layer's belongs to."""
        positions = [NONE] * (self._trace.sources[other] // fold)
        for place, arrival in self._arrivals(other, fold).items():
            if place not in arrivals:
                return None
            for scale, channel, rest in zip(
                arrival.positions,
                arrivals[place].positions,
                left[place].tolist(),
            ):
                if scale == NONE:
                    continue
                if scale == SEVERAL or channel < 0 or rest:
                    return None
                if positions[scale] not in (NONE, channel):
                    return None
                positions[scale] = channel
        return positions

    def _at_branch_end(self, name: str) -> GateSite | None:
        """A site that is masked where its branch ends.

        Before a residual sum, or (every conv) where the backbone ends.
        """
        arrivals = self._flow.of(name)
        if not any(
            arrival.others or (self._kinds.every_conv and place.kind == 'end')
            for place, arrival in arrivals.items()
            if place.kind in ('input', 'end')
        ):
            return None
        alone = {
            place: arrival
            for place, arrival in arrivals.items()
            if place.kind in ('input', 'depthwise')
            and not arrival.others
            and self._gateable(place, arrival)
        }
        alone = {
            place: arrival
            for place, arrival in alone.items()
            if place.kind == 'input' or self._is_masked_behind(place, alone)
        }
        channels = self._trace.sources[name]
        end = self._branch_end(name, arrivals)
        return self._site(name, channels, alone, [Member(name)], end)

    def _is_masked_behind(self, conv: Place, masked: Container[Place]) -> bool:
        """Whether all that a depthwise conv gives arrives at masked inputs.

        Its closed channels read zeros but give its bias, which a norm over
        all channels or a sum would carry into the open ones.
        """
        try:
            reached = self._trace.depends_on(conv.path)
        except BrokenProbe:
            return False
        return all(
            place in masked
            for place in reached
            if place.kind in ('input', 'end')
        )

    def _branch_end(self, name: str, arrivals: dict[Place, Arrival]) -> str:
        """The last module that all of a layer's channels pass, in order."""
        last = channels_last(self._backbone.get_submodule(name))
        kind = 'module-last' if last else 'module'
        channels = self._trace.sources[name]
        whole = Arrival(tuple(range(channels)), frozenset())
        everything = {name: torch.ones(channels).bool()}
        for place in reversed(arrivals):
            if (
                place.kind != kind
                or arrivals[place] != whole
                or not self._trace.runs_once(place.path)
            ):
                continue
            if self._all_pass(everything, place.path):
                return place.path
        return name

    def _all_pass(self, change: dict[str, Tensor], module: str) -> bool:
        """Whether a change reaches nothing while a module's output stays."""
        try:
            around = self._trace.changed(change, hold=module)
        except BrokenProbe:
            return False
        return not any(
            flags.any()
            for place, flags in around.items()
            if place.kind in ('input', 'end')
        )

    def _split(self, site: GateSite) -> list[GateSite]:
        everything = {site.name: torch.ones(site.channels).bool()}

        def alone(path: str) -> bool:
            layer = self._backbone.get_submodule(path)
            return is_depthwise(layer) and self._all_pass(everything, path)

        return [
            replace(part, macs_share=self._share(part))
            for part in split_depthwise(site, alone)
        ]

    def _share(self, site: GateSite) -> float:
        """Share of the backbone's dense MACs in layers that it shrinks."""
        paths = {member.path for member in (*site.consumers, *site.outputs)}
        return sum(self._macs[path] for path in paths) / self._total

    def _site(
        self,
        name: str,
        channels: int,
        arrivals: dict[Place, Arrival],
        outputs: list[Member],
        branch_end: str | None = None,
    ) -> GateSite | None:
        consumers = self._members('input', channels, arrivals)
        if not consumers and branch_end is None:
            return None
        outputs = [*outputs, *self._members('depthwise', channels, arrivals)]
        reads = layer_widths(self._backbone.get_submodule(name))[0]
        site = GateSite(
            name,
            tuple(consumers),
            tuple(sorted(outputs, key=self._place_of)),
            reads,
            channels,
            branch_end,
        )
        return replace(site, macs_share=self._share(site))

    def _members(
        self, kind: str, channels: int, arrivals: dict[Place, Arrival]
    ) -> list[Member]:
        members = [
            Member(place.path, _short(arrival.positions, channels))
            for place, arrival in arrivals.items()
            if place.kind == kind
        ]
        return sorted(members, key=self._place_of)

    def _place_of(self, member: Member) -> int:
        return self._order[member.path]


def _short(positions: Sequence[int], channels: int) -> Positions:
    """``None`` for all of a site's channels in their order."""
    whole = list(positions) == [*range(channels)]
    return None if whole else tuple(positions)


def _dense_macs(backbone: nn.Module, trace: Trace) -> Counter[str]:
    """MACs of every conv and linear layer, for one image."""
    macs: Counter[str] = Counter()
    for path, shape in trace.shapes.items():
        layer = backbone.get_submodule(path)
        reads, writes, groups = layer_widths(layer)
        kind = 'depthwise' if is_depthwise(layer) else 'input'
        runs = trace.runs[Place(kind, path)]
        macs[path] = runs * pair_macs(layer, shape) * reads * writes // groups
    return macs
