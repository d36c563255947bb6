"""How the weight of a loss moves through a run."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

from fgc_mm.errors import FGCError


@dataclass(frozen=True)
class Progress:
    """Where a run is.

    Attributes:
        epoch: Finished epochs.
        iteration: Finished iterations.
    """

    epoch: int
    iteration: int


@dataclass(frozen=True)
class LossWeight:
    """A weight that is constant, or moves on a line.

    Attributes:
        start_value: Weight before ``begin``.
        end_value: Weight from ``end`` on.
        begin: Epoch (or iteration) at which the line starts.
        end: Epoch (or iteration) at which it ends; equal to ``begin`` for a
            step, which then happens at ``begin``.
        by_epoch: Count epochs, or iterations.
    """

    start_value: float
    end_value: float
    begin: int = 0
    end: int = 0
    by_epoch: bool = True

    @classmethod
    def build(cls, weight: float | Mapping) -> 'LossWeight':
        """From the ``loss_weight`` of a config: a number, or a mapping."""
        if isinstance(weight, (int, float)):
            return cls(float(weight), float(weight))
        known = {field.name for field in fields(cls)}
        needed = {'start_value', 'end_value'}
        given = set(weight) if isinstance(weight, Mapping) else set()
        if not needed <= given <= known:
            raise FGCError(
                f'loss_weight={weight!r} is not understood; give a number, '
                'or a dict of start_value and end_value with begin, end and '
                'by_epoch.'
            )
        return cls(**weight)

    def __post_init__(self) -> None:
        if not (self.start_value >= 0 <= self.end_value < math.inf):
            raise FGCError(
                f'a loss_weight of {self.start_value} to {self.end_value} '
                'is no weight; it must be a finite number of at least 0.'
            )
        if not 0 <= self.begin <= self.end:
            raise FGCError(
                f'a loss_weight that moves from {self.begin} to {self.end} '
                'goes backwards; 0 <= begin <= end must hold.'
            )

    @property
    def moves(self) -> bool:
        """Whether the weight depends on the progress."""
        return self.start_value != self.end_value

    @property
    def first_epoch(self) -> int | None:
        """The first epoch in which the weight acts; None if unknown."""
        if not self.moves or self.start_value:
            return 0
        # a line is still at its start, 0, in the epoch at which it begins
        first = self.begin + (self.begin < self.end)
        return first if self.by_epoch else None

    def at(self, progress: Progress | None) -> float:
        """The weight at a point of the run.

        Raises:
            FGCError: The weight moves and nobody tells where the run is.
        """
        if not self.moves:
            return self.end_value
        if progress is None:
            raise FGCError(
                'a loss_weight that moves is asked for its value and nobody '
                'says where the run is; add dict(type='
                "'fgc_mm.LossProgressHook') to custom_hooks."
            )
        now = progress.epoch if self.by_epoch else progress.iteration
        if now >= self.end:
            return self.end_value
        if now <= self.begin:
            return self.start_value
        share = (now - self.begin) / (self.end - self.begin)
        return self.start_value + share * (self.end_value - self.start_value)
