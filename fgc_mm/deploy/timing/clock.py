"""Times of several networks on the same images, alternating."""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


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
        taken = torch.tensor(seconds, dtype=torch.float64) * 1e3
        low, median, high = (
            float(taken.quantile(share)) for share in (0.25, 0.5, 0.75)
        )
        return cls(median, low, high, len(taken))


@torch.no_grad()
def interleaved_times(
    runs: Mapping[str, Callable[[Tensor], object]],
    batches: Sequence[Tensor],
    rounds: int,
    warm_up: int = 3,
) -> dict[str, Times]:
    """Time every network on every batch, alternating.

    A machine that slows down then slows down all of them. Each network first
    runs the previous batch untimed, as in a stream of images, so that caches
    and threads are in its own state, not another network's. The order is
    random for every batch.

    Args:
        runs: The networks, by name.
        batches: Real images; every round uses all of them.
        rounds: Number of rounds.
        warm_up: Batches that every network runs first, untimed.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        for batch in batches[:warm_up]:
            run(batch)
    order, draw = list(runs), random.Random(0)
    for _ in range(rounds):
        for before, batch in zip([batches[-1], *batches], batches):
            draw.shuffle(order)
            for name in order:
                runs[name](before)
                start = time.perf_counter()
                runs[name](batch)
                seconds[name].append(time.perf_counter() - start)
    return {name: Times.of(taken) for name, taken in seconds.items()}
