"""How long a comparison will still take."""

import statistics
import time
from collections.abc import Callable, Mapping


class TimeLeft:
    """Estimate from the epochs of all runs since the start.

    The remaining epochs of a run take as long as its own have taken; those of
    a run that has not begun, as long as the mean of all runs.

    Args:
        epochs: Total number of epochs of each run.
        done: Number of epochs that each run had before the start.
        clock: Returns the time in seconds.
    """

    def __init__(
        self,
        epochs: Mapping[str, int],
        done: Mapping[str, int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._epochs = dict(epochs)
        self._before = dict(done)
        self._done = dict(done)
        self._clock = clock
        self._start = clock()
        self._begun: dict[str, float] = {}  # time at which a run began
        self._pace: dict[str, float] = {}  # seconds of an epoch of a run

    def update(self, name: str, done: int) -> None:
        """Set the number of finished epochs of a run."""
        now, new = self._clock(), done - self._before[name]
        if new <= 0:
            self._begun.setdefault(name, now)
        elif done != self._done[name]:
            began = self._begun.get(name, self._start)
            self._pace[name] = (now - began) / new
        self._done[name] = done

    def end(self, name: str) -> None:
        """Count no further epochs of a run, which has failed or ended."""
        self._epochs[name] = self._done[name]

    def seconds(self) -> float | None:
        """Seconds until the last run ends; ``None`` if nothing is known."""
        spent = sum(
            pace * (self._done[name] - self._before[name])
            for name, pace in self._pace.items()
        )
        elapsed = self._clock() - self._start
        if not spent or not elapsed:
            return None
        mean = statistics.mean(self._pace.values())
        left = sum(
            self._pace.get(name, mean) * (epochs - self._done[name])
            for name, epochs in self._epochs.items()
        )
        at_once = spent / elapsed  # runs beside each other
        return max(left, 0) / at_once

    def __str__(self) -> str:
        """Text for a progress line; '' if the time is unknown or 0."""
        seconds = self.seconds()
        if not seconds:
            return ''
        minutes = round(seconds / 60)
        hours, rest = divmod(minutes, 60)
        if hours >= 24:
            return f'about {hours // 24} d {hours % 24} h left'
        if hours:
            return f'about {hours} h {rest} min left'
        return f'about {max(minutes, 1)} min left'
