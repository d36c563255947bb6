"""Which channel of which source arrives at which probe point."""

from collections.abc import Container
from typing import NamedTuple

import torch
from torch import Tensor

from fgc_mm.sites.channel_probe import (
    BrokenProbe,
    ChannelProbe,
    ProbePoint,
    StoppedPass,
)

NONE, MIXED = -1, -2  # instead of a channel index


class Arrival(NamedTuple):
    """What arrives from a source at a probe point.

    Attributes:
        positions: For every channel of the point, the index of the source's
            channel that arrives there, ``NONE`` or ``MIXED``.
        others: The other sources that arrive at the same channels.
    """

    positions: tuple[int, ...]
    others: frozenset[str]

    @property
    def unmixed(self) -> bool:
        """Whether no channel mixes several channels of the source."""
        return MIXED not in self.positions


class ChannelFlow:
    """Finds which channel of which source arrives at which probe point.

    First the output of each source is changed by itself, which shows where
    it arrives. Then channels are identified by the bits of their index, with
    two passes per bit: in one the channels change whose index has this bit
    set, in the other all others. A channel of a point must change in exactly
    one of the two; its bits are the index of the channel that arrives there.
    Two sources meet if they arrive at the same channel of a point; they are
    probed in different rounds, since they would hide each other's bits. Where
    more than two sources meet, channels are not identified.

    A source may be folded: channels ``n`` and ``n + C / fold`` count as one,
    as for a layer whose halves are multiplied (a gated linear unit) or
    summed with weights (split attention). ``fold`` is 1 for all others.

    Args:
        probe: Probes the network.
        every: Whether to identify the channels of all sources. If false,
            those of sources that leave the backbone or meet more than one
            other source are ``MIXED``, and fewer passes are needed.
    """

    def __init__(self, probe: ChannelProbe, every: bool = True) -> None:
        self._probe = probe
        self._names = list(probe.sources)
        self._index = {name: i for i, name in enumerate(self._names)}
        ends = torch.tensor(list(probe.points.values())).cumsum(0).tolist()
        starts = [0, *ends]
        self._columns = {
            point: slice(start, end)
            for point, start, end in zip(probe.points, starts, ends)
        }
        self._unresolvable: set[str] = set()
        self._num_sources = torch.zeros(ends[-1], dtype=torch.long)
        self._reaches = self._find_reach(every)
        self._round = self._assign_rounds()
        if not every:
            self._unresolvable |= self._unresolved_sources()
        self._decoded: dict[tuple[int, int], Tensor] = {}

    def arrivals(
        self, source: str, fold: int = 1
    ) -> dict[ProbePoint, Arrival]:
        """Where a source arrives, in the order of the forward pass."""
        row = self._reaches[self._index[source]]
        positions = torch.where(row, self._channel(source, fold), NONE)
        return {
            point: Arrival(
                tuple(positions[self._columns[point]].tolist()), others
            )
            for point, others in self.reached(source).items()
        }

    def reached(self, source: str) -> dict[ProbePoint, frozenset[str]]:
        """The other sources at every point where a source arrives."""
        row = self._reaches[self._index[source]]
        reached = {}
        for point, columns in self._columns.items():
            here = row[columns]
            if here.any():
                meeting = self._reaches[:, columns][:, here].any(1)
                others = {self._names[i] for i in meeting.nonzero().flatten()}
                reached[point] = frozenset(others - {source})
        return reached

    def _channel(self, source: str, fold: int) -> Tensor:
        """The source's channel arriving at each point, where it arrives."""
        if source in self._unresolvable:
            return torch.full_like(self._num_sources, MIXED)
        key = self._round[source], fold
        if key not in self._decoded:
            self._decoded[key] = self._decode(*key)
        return self._decoded[key]

    def _find_reach(self, every: bool) -> Tensor:
        """Where every source arrives; (sources, channels of all points).

        The pass of a source that meets two others is stopped early, since
        its channels cannot be identified; all such sources change together
        in one further pass.
        """
        rows = {}
        for name in self._names:
            group = None if every else self._by_point(self._num_sources >= 2)
            try:
                flags = self._probe.propagate(
                    self._probe.whole(name), stop_at=group
                )
            except StoppedPass:
                self._unresolvable.add(name)
            except BrokenProbe:
                self._unresolvable.add(name)
                rows[name] = self._reach_of_failing(name)
                self._num_sources += 3 * rows[name]
            else:
                rows[name] = _concatenated(flags)
                self._num_sources += rows[name]
        stopped = [name for name in self._names if name not in rows]
        if stopped:
            row = self._reach_of_any(stopped)
            rows |= dict.fromkeys(stopped, row)
            self._num_sources += 3 * row
        return torch.stack([rows[name] for name in self._names])

    def _reach_of_any(self, names: list[str]) -> Tensor:
        """Where any of these sources arrives."""
        try:
            change = self._probe.whole(*names)
            return _concatenated(self._probe.propagate(change))
        except BrokenProbe:
            rows = map(self._reach_of_failing, names)
            return torch.stack(list(rows)).any(0)

    def _reach_of_failing(self, name: str) -> Tensor:
        """Where a source arrives if the network fails with its change.

        Tries a small change; if the network fails again, the source is
        assumed to reach every later point.
        """
        try:
            change = self._probe.whole(name)
            return _concatenated(self._probe.propagate(change, small=True))
        except BrokenProbe:
            later = torch.ones_like(self._num_sources).bool()
            own = self._columns.get(ProbePoint('input', name), slice(0, 0))
            later[: own.stop] = False
            return later

    def _by_point(self, columns: Tensor) -> dict[ProbePoint, Tensor]:
        return {point: columns[c] for point, c in self._columns.items()}

    def _unresolved_sources(self) -> set[str]:
        """Sources that leave the backbone or meet more than one other."""
        group = self._num_sources > 2
        for point, columns in self._columns.items():
            group[columns] |= point.kind == 'end'
        rows = (self._reaches & group).any(1).tolist()
        return {name for name, shared in zip(self._names, rows) if shared}

    def _assign_rounds(self) -> dict[str, int]:
        """A round for each source; sources that meet in pairs get two."""
        pairs = self._reaches[:, self._num_sources == 2]
        rounds: dict[str, int] = {}
        for i, name in enumerate(self._names):
            shared = pairs[:, pairs[i]].any(1).nonzero().flatten().tolist()
            taken = {rounds.get(self._names[j]) for j in shared if j != i}
            rounds[name] = next(
                t for t in range(len(shared) + 1) if t not in taken
            )
        return rounds

    def _decode(self, round_: int, fold: int) -> Tensor:
        """The channel arriving at each point, for the sources of a round."""
        sources = {
            name: torch.arange(n) % (n // fold)
            for name, n in self._probe.sources.items()
            if self._round[name] == round_
            and n % fold == 0
            and name not in self._unresolvable
        }
        return self._identify(sources)

    def _identify(self, sources: dict[str, Tensor]) -> Tensor:
        """The channel that arrives from sources that do not meet.

        If the network fails when all of them change, each half is tried.
        """
        try:
            return self._read_bits(dict(sources))
        except BrokenProbe:
            names = list(sources)
        if len(names) == 1:
            return torch.full_like(self._num_sources, MIXED)
        first, second = (
            self._identify({name: sources[name] for name in half})
            for half in (names[: len(names) // 2], names[len(names) // 2 :])
        )
        return torch.where(first == MIXED, second, first)

    def _read_bits(self, sources: dict[str, Tensor]) -> Tensor:
        channel = torch.zeros_like(self._num_sources)
        clear = (self._num_sources <= 2) & bool(sources)
        most = max((int(n.max()) for n in sources.values()), default=0)
        for bit in range(most.bit_length()):
            unsure = self._by_point(clear)
            only = {point for point, x in unsure.items() if x.any()}
            ones, zeros = self._probe_bit(sources, bit, only)
            clear &= ones != zeros
            channel += ones.long() << bit
            for name in list(sources):  # fully mixed: nothing to identify
                if not (self._reaches[self._index[name]] & clear).any():
                    del sources[name]
        return torch.where(clear, channel, MIXED)

    def _probe_bit(
        self, sources: dict[str, Tensor], bit: int, only: Container[ProbePoint]
    ) -> tuple[Tensor, Tensor]:
        """Where channels arrive whose index has a bit set, and the others."""
        ones, zeros = (
            self._probe.propagate(
                {k: (n >> bit & 1) == v for k, n in sources.items()}, only=only
            )
            for v in (1, 0)
        )
        return _concatenated(ones), _concatenated(zeros)


def _concatenated(flags: dict[ProbePoint, Tensor]) -> Tensor:
    return torch.cat(list(flags.values()))
