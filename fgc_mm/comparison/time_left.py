"""How long a comparison will still take."""

import time
from collections.abc import Callable, Mapping


class TimeLeft:
    """Estimate from the epochs of all runs since the start.

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

    def update(self, name: str, done: int) -> None:
        """Set the number of finished epochs of a run."""
        self._done[name] = done

    def end(self, name: str) -> None:
        """Count no further epochs of a run, which has failed or ended."""
        self._epochs[name] = self._done[name]

    def seconds(self) -> float | None:
        """Seconds until the last run ends; ``None`` if nothing is known."""
        new = sum(self._done.values()) - sum(self._before.values())
        left = sum(self._epochs.values()) - sum(self._done.values())
        if new <= 0:
            return None
        return max(left, 0) * (self._clock() - self._start) / new

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
