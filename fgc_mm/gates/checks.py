"""What gates share: checks, initialisation, the logit of a probability."""

import math
from collections.abc import Mapping
from typing import Any

from torch import nn

from fgc_mm.errors import FGCError
from fgc_mm.functional.schedule import Schedule

WEIGHT_INITS = ('torch', 'kaiming_normal', 'zero')


def check_threshold(threshold: float, gate: str) -> None:
    """Raise FGCError unless it is a probability that can be passed."""
    if not 0 < threshold < 1:
        raise FGCError(
            f'threshold={threshold} of {gate} is no probability that a '
            'channel can pass; give a number between 0 and 1 (trained: 0.5).'
        )


def logit(probability: float) -> float:
    """The logit whose sigmoid is a probability, in (0, 1)."""
    return math.log(probability / (1 - probability))


def initialize_linear(
    first: nn.Linear, last: nn.Linear, weight_init: str, gate: str
) -> None:
    """Set the weights of a gate's two linear layers.

    Args:
        first: From the features to the hidden layer.
        last: From there to the logits.
        weight_init: ``'torch'`` leaves them as ``nn.Linear`` makes them;
            ``'kaiming_normal'`` draws both (fan in, gain sqrt 2); ``'zero'``
            sets the last one to 0, so that only its bias decides at first.
        gate: Whose they are, for messages.

    Raises:
        FGCError: Another word.
    """
    if weight_init not in WEIGHT_INITS:
        raise FGCError(
            f'weight_init={weight_init!r} of {gate} is unknown; choose '
            f'among {", ".join(WEIGHT_INITS)}.'
        )
    if weight_init == 'kaiming_normal':
        nn.init.kaiming_normal_(first.weight)
        nn.init.kaiming_normal_(last.weight)
    if weight_init == 'zero':
        nn.init.zeros_(last.weight)


def share_of_channels(
    value: float | Mapping[str, Any], name: str, gate: str
) -> Schedule:
    """A schedule all of whose values lie in (0, 1].

    Raises:
        FGCError: They do not.
    """
    schedule = Schedule.build(value, name)
    if not all(0 < end <= 1 for end in schedule.ends):
        raise FGCError(
            f'{name}={value!r} of {gate} leaves no channel, or is no share '
            'of them; give a number above 0 and up to 1.'
        )
    return schedule
