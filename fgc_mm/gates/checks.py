"""Checks and initialisation shared by the gates."""

import math
from collections.abc import Mapping
from typing import Any

from torch import nn

from fgc_mm.errors import FGCError, check_choice
from fgc_mm.functional.number import is_number
from fgc_mm.functional.schedule import Schedule

WEIGHT_INITS = ('torch', 'kaiming_normal', 'zero')


def check_threshold(threshold: float, gate: str) -> None:
    """Raise FGCError unless the threshold is in (0, 1)."""
    if not (is_number(threshold) and 0 < threshold < 1):
        raise FGCError(
            f'threshold={threshold!r} of {gate} is not a probability that a '
            'channel can exceed; give a number between 0 and 1 (trained: '
            '0.5).'
        )


def check_width(hidden_channels: int, gate: str) -> None:
    """Raise FGCError unless a hidden layer has a whole number of channels."""
    if not isinstance(hidden_channels, int) or hidden_channels < 1:
        raise FGCError(
            f'hidden_channels={hidden_channels!r} of {gate} is not a number '
            'of channels; give a whole one of at least 1.'
        )


def logit(probability: float) -> float:
    """The logit whose sigmoid is a probability, in (0, 1)."""
    return math.log(probability / (1 - probability))


def initialize_linear(
    first: nn.Linear, last: nn.Linear, weight_init: str, gate: str
) -> None:
    """Set the weights of a gate's two linear layers.

    For the values of ``weight_init`` see :class:`BinaryConcreteGate`; others
    raise FGCError.
    """
    check_choice(
        f'weight_init={weight_init!r} of {gate}', weight_init, WEIGHT_INITS
    )
    if weight_init == 'kaiming_normal':
        nn.init.kaiming_normal_(first.weight)
        nn.init.kaiming_normal_(last.weight)
    if weight_init == 'zero':
        nn.init.zeros_(last.weight)


def channel_fraction(
    value: float | Mapping[str, Any], name: str, gate: str
) -> Schedule:
    """A schedule with all values in (0, 1]; FGCError for others."""
    schedule = Schedule.build(value, name)
    if not all(0 < end <= 1 for end in schedule.ends):
        raise FGCError(
            f'{name}={value!r} of {gate} leaves no channel, or is not a '
            'fraction of them; give a number above 0 and up to 1.'
        )
    return schedule
