"""What runs when: all runs of a comparison, as places become free."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence

from fgc_mm.exit_status import STOPPED

from ..errors import FGCError
from .run import Run
from .workers import Workers

OVER = {'done', 'failed', 'stopped'}
SECONDS = 0.2


class Dispatcher:
    """Takes every run through its steps.

    A run waits for the one that it starts from. One that fails stops
    nothing but those that start from it.

    Args:
        runs: In the order in which they are begun.
        workers: Where they run.
        changed: Called with a run whose state has changed, after
            ``finish``.
        finish: Called with a run that was trained and tested; an FGCError
            of its makes the run a failed one.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        workers: Workers,
        changed: Callable[[Run], None],
        finish: Callable[[Run], None],
    ) -> None:
        self.runs = {run.name: run for run in runs}
        self.workers = workers
        self.changed = changed
        self.finish = finish
        self.stopping = False

    def go(self, tick: Callable[[], None]) -> None:
        """Runs until nothing is left; ``tick`` is called all the while."""
        while self._begin() or self.workers.busy:
            for name, code in self.workers.ended():
                self._ended(self.runs[name], code)
            tick()
            if self.workers.busy:
                time.sleep(SECONDS)

    def stop(self) -> None:
        """Begins nothing any more, and has all runs save and leave."""
        self.stopping = True
        self.workers.stop()

    def _begin(self) -> bool:
        """Gives the free places away; whether any state has changed."""
        moved = False
        for run in self.runs.values():
            if self.stopping or not self.workers.free:
                break
            if run.state == 'waiting':
                moved |= self._advance(run, 'waiting')
        return moved

    def _advance(self, run: Run, before: str) -> bool:
        """The next step of a run; whether there was one to take."""
        start = run.start
        if start is not None and start.state in ('failed', 'stopped'):
            reason = f'it starts from {start.name}, which has {start.state}'
            self._set(run, start.state, reason)
            return True
        if start is not None and start.state != 'done':
            return False
        try:
            step = run.next_step()
            if step is None:
                self.finish(run)
        except FGCError as error:
            self._set(run, 'failed', str(error))
            return True
        if step is None:
            self._set(run, 'done')
        elif step[0] == before:
            self._set(run, 'failed', 'it has ended without its result')
        else:
            self.workers.start(run.name, step[1], run.log)
            run.note(step[1])
            self._set(run, step[0])
        return True

    def _ended(self, run: Run, code: int) -> None:
        if code == STOPPED or (code and self.stopping):
            self._set(run, 'stopped', 'the same command goes on from there')
        elif code:
            self._set(run, 'failed', f'{_words(code)}; {last_line(run)}')
        elif self.stopping and run.next_step() is not None:
            self._set(run, 'stopped', 'the same command goes on from there')
        else:
            self._advance(run, run.state)

    def _set(self, run: Run, state: str, reason: str = '') -> None:
        run.state, run.reason = state, reason
        self.changed(run)


def last_line(run: Run) -> str:
    """Where the log of a run is, and its last line."""
    text = run.log.read_text(errors='replace') if run.log.exists() else ''
    lines = [line for line in text.splitlines() if line.strip()]
    return f'{run.log} ends: {lines[-1].strip() if lines else "(empty)"}'


def _words(code: int) -> str:
    if code < 0:
        return f'killed by {signal.Signals(-code).name}'
    return f'exit code {code}'
