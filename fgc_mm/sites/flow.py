"""Which channel of which source arrives where."""

from collections.abc import Container
from typing import NamedTuple

import torch
from torch import Tensor

from fgc_mm.sites.trace import BrokenProbe, Place, Trace

NONE, SEVERAL = -1, -2  # in place of a channel


class Arrival(NamedTuple):
    """What arrives of a source at a place.

    Attributes:
        positions: For every channel of the place, the source's channel that
            arrives there, ``NONE`` or ``SEVERAL``.
        others: The other sources that arrive at the same channels.
    """

    positions: tuple[int, ...]
    others: frozenset[str]

    @property
    def unmixed(self) -> bool:
        """Whether every channel stays apart from the source's others."""
        return SEVERAL not in self.positions


class Flow:
    """Which channel of which source arrives where, found by trying.

    First every source changes alone, which tells where it arrives. Then
    channels change together by the bits of their numbers: where all bits of
    a number arrive, and none of their opposites, that one channel arrives.
    Sources that meet change in turn, as they would hide each other's bits;
    where more than two meet, channels are not told apart.

    A source may be folded: channels ``n`` and ``n + C / fold`` count as one,
    as they are where a layer's halves are multiplied (a gated linear unit)
    or summed with weights (split attention).

    Args:
        trace: The network to try.
        every: Tell apart the channels of all sources, also of those that
            leave the backbone or meet more than one other; else theirs are
            ``SEVERAL``, and the trial is shorter.
    """

    def __init__(self, trace: Trace, every: bool = True) -> None:
        self._trace = trace
        self._names = list(trace.sources)
        self._index = {name: i for i, name in enumerate(self._names)}
        ends = torch.tensor(list(trace.places.values())).cumsum(0).tolist()
        starts = [0, *ends]
        self._columns = {
            place: slice(start, end)
            for place, start, end in zip(trace.places, starts, ends)
        }
        self._whole = {
            name: torch.ones(n).bool() for name, n in trace.sources.items()
        }
        self._hopeless: set[str] = set()
        self._meets = torch.zeros(ends[-1], dtype=torch.long)
        self._arrives = self._follow(every)
        self._turn = self._take_turns()
        if not every:
            self._hopeless |= self._crowded()
        self._decoded: dict[tuple[int, int], Tensor] = {}

    def of(self, source: str, fold: int = 1) -> dict[Place, Arrival]:
        """Where a source arrives, in the order of the forward pass.

        Args:
            source: Its name.
            fold: Divides its number of channels.
        """
        row = self._arrives[self._index[source]]
        channel = self._channel(source, fold)
        return {
            place: self._arrival(
                source, row[columns], channel[columns], columns
            )
            for place, columns in self._columns.items()
            if row[columns].any()
        }

    def reached(self, source: str) -> dict[Place, frozenset[str]]:
        """The other sources at every place where a source arrives."""
        row = self._arrives[self._index[source]]
        return {
            place: self._others(source, row[columns], columns)
            for place, columns in self._columns.items()
            if row[columns].any()
        }

    def _channel(self, source: str, fold: int) -> Tensor:
        """The source's channel that arrives, where the source does."""
        if source in self._hopeless:
            return torch.full_like(self._meets, SEVERAL)
        key = self._turn[source], fold
        if key not in self._decoded:
            self._decoded[key] = self._decode(*key)
        return self._decoded[key]

    def _arrival(
        self, source: str, here: Tensor, channel: Tensor, columns: slice
    ) -> Arrival:
        positions = torch.where(here, channel, NONE)
        others = self._others(source, here, columns)
        return Arrival(tuple(positions.tolist()), others)

    def _others(
        self, source: str, here: Tensor, columns: slice
    ) -> frozenset[str]:
        meeting = self._arrives[:, columns][:, here].any(1)
        others = {self._names[i] for i in meeting.nonzero().flatten()}
        return frozenset(others - {source})

    def _follow(self, every: bool) -> Tensor:
        """Where every source arrives; (sources, channels of all places).

        One that meets two others is hopeless, and is not followed to the
        end; all of those change together in one more pass.
        """
        rows = {}
        for name, whole in self._whole.items():
            crowd = None if every else self._apart(self._meets >= 2)
            try:
                flags = self._trace.changed({name: whole}, until=crowd)
            except BrokenProbe:
                self._hopeless.add(name)
                rows[name] = self._reach_of_broken(name)
                self._meets += 3 * rows[name]
                continue
            if flags is None:
                self._hopeless.add(name)
                continue
            rows[name] = _joined(flags)
            self._meets += rows[name]
        rest = [name for name in self._names if name not in rows]
        if rest:
            row = self._reach_of_crowd(rest)
            rows |= dict.fromkeys(rest, row)
            self._meets += 3 * row
        return torch.stack([rows[name] for name in self._names])

    def _reach_of_crowd(self, names: list[str]) -> Tensor:
        """Where any of these sources arrives."""
        crowd = {name: self._whole[name] for name in names}
        try:
            return _joined(self._trace.changed(crowd))
        except BrokenProbe:
            rows = map(self._reach_of_broken, names)
            return torch.stack(list(rows)).any(0)

    def _reach_of_broken(self, name: str) -> Tensor:
        """Where a source arrives whose change breaks the network.

        A small change tells; if that breaks it, too, it may be anywhere
        behind the source.
        """
        change = {name: self._whole[name]}
        try:
            return _joined(self._trace.changed(change, gently=True))
        except BrokenProbe:
            behind = torch.ones_like(self._meets).bool()
            own = self._columns.get(Place('input', name), slice(0, 0))
            behind[: own.stop] = False
            return behind

    def _apart(self, columns: Tensor) -> dict[Place, Tensor]:
        return {place: columns[c] for place, c in self._columns.items()}

    def _crowded(self) -> set[str]:
        """Sources that leave the backbone or meet more than one other."""
        crowd = self._meets > 2
        for place, columns in self._columns.items():
            crowd[columns] |= place.kind == 'end'
        rows = (self._arrives & crowd).any(1).tolist()
        return {name for name, met in zip(self._names, rows) if met}

    def _take_turns(self) -> dict[str, int]:
        """A turn for every source, apart from those that it meets in pairs."""
        pairs = self._arrives[:, self._meets == 2]
        turns: dict[str, int] = {}
        for i, name in enumerate(self._names):
            met = pairs[:, pairs[i]].any(1).nonzero().flatten().tolist()
            taken = {turns.get(self._names[j]) for j in met if j != i}
            turns[name] = next(
                t for t in range(len(met) + 1) if t not in taken
            )
        return turns

    def _decode(self, turn: int, fold: int) -> Tensor:
        """The channel that arrives of the sources whose turn it is."""
        sources = {
            name: torch.arange(n) % (n // fold)
            for name, n in self._trace.sources.items()
            if self._turn[name] == turn and n % fold == 0
        }
        for name in self._hopeless:
            sources.pop(name, None)
        return self._told_apart(sources)

    def _told_apart(self, sources: dict[str, Tensor]) -> Tensor:
        """The channel that arrives of sources that do not meet.

        Where they break the network together, each half of them is tried.
        """
        try:
            return self._read_bits(dict(sources))
        except BrokenProbe:
            names = list(sources)
        if len(names) == 1:
            return torch.full_like(self._meets, SEVERAL)
        first, second = (
            self._told_apart({name: sources[name] for name in half})
            for half in (names[: len(names) // 2], names[len(names) // 2 :])
        )
        return torch.where(first == SEVERAL, second, first)

    def _read_bits(self, sources: dict[str, Tensor]) -> Tensor:
        channel = torch.zeros_like(self._meets)
        clear = (self._meets <= 2) & bool(sources)
        most = max((int(n.max()) for n in sources.values()), default=0)
        for bit in range(most.bit_length()):
            unsure = self._apart(clear)
            only = {place for place, x in unsure.items() if x.any()}
            ones, zeros = self._halves(sources, bit, only)
            clear &= ones != zeros
            channel += ones.long() << bit
            for name in list(sources):  # all of it mixed: nothing to tell
                if not (self._arrives[self._index[name]] & clear).any():
                    del sources[name]
        return torch.where(clear, channel, SEVERAL)

    def _halves(
        self, sources: dict[str, Tensor], bit: int, only: Container[Place]
    ) -> tuple[Tensor, Tensor]:
        """Where channels arrive whose numbers have a bit, and the others."""
        ones, zeros = (
            self._trace.changed(
                {k: (n >> bit & 1) == v for k, n in sources.items()},
                only=only,
            )
            for v in (1, 0)
        )
        return _joined(ones), _joined(zeros)


def _joined(flags: dict[Place, Tensor]) -> Tensor:
    return torch.cat(list(flags.values()))
