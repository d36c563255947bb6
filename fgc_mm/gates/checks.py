"""What gates share: checks, and the logit of a probability."""

import math
from collections.abc import Mapping
from typing import Any

from fgc_mm.errors import FGCError
from fgc_mm.functional.schedule import Schedule


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


def share_of_channels(
    value: float | Mapping[str, Any], name: str, gate: str
) -> Schedule:
    """A schedule all of whose values lie in (0, 1].

    Raises:
        FGCError: They do not.
    """
    schedule = Schedule.build(value, name)
    ends = schedule.start_value, schedule.end_value
    if not all(0 < end <= 1 for end in ends):
        raise FGCError(
            f'{name}={value!r} of {gate} leaves no channel, or is no share '
            'of them; give a number above 0 and up to 1.'
        )
    return schedule
