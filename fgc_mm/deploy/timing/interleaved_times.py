"""Times of several networks on the same images, alternating."""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle

import numpy as np
import torch
from torch import Tensor

SETTLE_SECONDS = 0.01  # several images of a small network


@dataclass(frozen=True)
class Times:
    """Times of one network for one batch, in milliseconds.

    Attributes:
        median: Over all batches and rounds.
        low: First quartile.
        high: Third quartile.
        count: Number of measurements.
    """

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> 'Times':
        """Summarise single times, in seconds."""
        low, median, high = 1e3 * np.percentile(seconds, (25, 50, 75))
        return cls(float(median), float(low), float(high), len(seconds))


@torch.no_grad()
def interleaved_times(
    runs: Mapping[str, Callable[[Tensor], object]],
    batches: Sequence[Tensor],
    rounds: int,
    warm_up: int = 3,
    settle: float = SETTLE_SECONDS,
) -> dict[str, Times]:
    """Time every network on every batch, alternating.

    If the machine slows down, all networks slow down. Each network first runs
    other batches untimed, as in a stream of images, so that caches, branch
    predictors and threads are not in the state that another network has
    left. The order is random for every batch.

    Args:
        runs: The networks, by name.
        batches: Real images; every round uses all of them.
        rounds: Number of rounds.
        warm_up: Batches that every network runs first, untimed.
        settle: Seconds of untimed batches before every timed one; at least
            one, the previous batch.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        for batch in batches[:warm_up]:
            run(batch)
    order, draw = list(runs), random.Random(0)
    for _ in range(rounds):
        for number, batch in enumerate(batches):
            before = [*batches[number + 1 :], *batches[:number]] or [batch]
            draw.shuffle(order)
            for name in order:
                _run_for(settle, runs[name], before[::-1])
                start = time.perf_counter()
                runs[name](batch)
                seconds[name].append(time.perf_counter() - start)
    return {name: Times.of(taken) for name, taken in seconds.items()}


def _run_for(
    seconds: float,
    run: Callable[[Tensor], object],
    batches: Sequence[Tensor],
) -> None:
    """Run batches in turn, at least one, for this number of seconds."""
    end = time.perf_counter() + seconds
    for batch in cycle(batches):
        run(batch)
        if time.perf_counter() >= end:
            return
