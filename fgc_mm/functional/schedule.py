"""Scheduled values: loss weights, densities."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from fgc_mm.errors import FGCError, check_choice
from fgc_mm.functional.number import is_number

CURVES = ('line', 'cosine')


@dataclass(frozen=True)
class Progress:
    """Progress of the training.

    Attributes:
        epoch: Finished epochs.
        iteration: Finished iterations.
    """

    epoch: int
    iteration: int


@dataclass(frozen=True)
class Schedule:
    """A constant, or a value that changes during training.

    Attributes:
        start_value: The value before ``begin``.
        end_value: The value from ``end`` on.
        begin: Epoch (or iteration) at which it starts to change.
        end: Epoch (or iteration) at which it reaches ``end_value``; equal to
            ``begin`` for a step at ``begin``.
        by_epoch: Whether to count epochs or iterations.
        curve: ``'line'``, or ``'cosine'``: half a period, flat at both ends.
        name: Name in the config, for messages.
    """

    start_value: float
    end_value: float
    begin: int = 0
    end: int = 0
    by_epoch: bool = True
    curve: str = 'line'
    name: str = field(default='loss_weight', compare=False)

    @classmethod
    def build(
        cls, value: float | Mapping, name: str = 'loss_weight'
    ) -> 'Schedule':
        """The schedule of a config's value, a number or a mapping.

        Raises:
            FGCError: It is neither, or a number or the order is invalid.
        """
        if isinstance(value, (int, float)):
            return cls(float(value), float(value), name=name)
        known = {field.name for field in fields(cls)} - {'name'}
        needed = {'start_value', 'end_value'}
        given = set(value) if isinstance(value, Mapping) else set()
        if not needed <= given <= known:
            raise FGCError(
                f'{name}={value!r} is not a schedule; give a number, or a '
                'dict of start_value and end_value with begin, end, by_epoch '
                'and curve.'
            )
        return cls(**value, name=name)

    @property
    def ends(self) -> tuple[float, float]:
        """The first and the last value; the others are between them."""
        return self.start_value, self.end_value

    def __post_init__(self) -> None:
        if not all(map(is_number, (*self.ends, self.begin, self.end))):
            raise FGCError(
                f'a {self.name} that changes from {self.start_value!r} to '
                f'{self.end_value!r} between {self.begin!r} and {self.end!r} '
                'is not made of four numbers; write them without quotes, '
                'with a decimal point.'
            )
        low, high = sorted(self.ends)
        if not 0 <= low <= high < math.inf:
            raise FGCError(
                f'a {self.name} of {self.start_value} to {self.end_value} '
                'is invalid; it must be a finite number of at least 0.'
            )
        if not 0 <= self.begin <= self.end:
            raise FGCError(
                f'a {self.name} that changes from {self.begin} to {self.end} '
                'goes backwards; 0 <= begin <= end must hold.'
            )
        check_choice(
            f'curve={self.curve!r} of a {self.name}', self.curve, CURVES
        )

    @property
    def varies(self) -> bool:
        """Whether the value depends on the progress."""
        return self.start_value != self.end_value

    @property
    def first_epoch(self) -> int | None:
        """The first epoch in which the value is not 0; None if unknown."""
        if not self.varies or self.start_value:
            return 0
        # in the epoch ``begin`` the value is still start_value, 0
        first = self.begin + (self.begin < self.end)
        return first if self.by_epoch else None

    def at(self, progress: Progress | None) -> float:
        """The value at some progress.

        Raises:
            FGCError: The value changes, but the progress is unknown.
        """
        if not self.varies:
            return self.end_value
        if progress is None:
            raise FGCError(
                f'a {self.name} that changes needs the progress of the '
                "training; add dict(type='fgc_mm.LossProgressHook') to "
                'custom_hooks.'
            )
        now = progress.epoch if self.by_epoch else progress.iteration
        if now >= self.end:
            return self.end_value
        if now <= self.begin:
            return self.start_value
        share = (now - self.begin) / (self.end - self.begin)
        if self.curve == 'cosine':
            share = (1 - math.cos(math.pi * share)) / 2
        return self.start_value + share * (self.end_value - self.start_value)
