"""Scheduler: starts the runs of a comparison as worker slots become free."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence

from fgc_mm.exit_status import STOPPED

from ..errors import FGCError
from .run import Run
from .workers import Workers

POLL_SECONDS = 0.2
ENDED = {'failed': 'failed', 'stopped': 'was stopped'}
CONTINUE = 'run the same command again to continue'


class RunScheduler:
    """Takes every run through its steps.

    A run waits for the run that it starts from. If a run fails, only the
    runs that start from it are cancelled.

    Args:
        runs: In the order in which they are begun.
        workers: Worker slots (processes, GPUs).
        changed: Called after every state change; for a finished run, after
            ``finish``.
        finish: Called when a run is trained and tested; if it raises
            FGCError the run counts as failed.
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
        """Run until all have ended, calling ``tick`` at every poll."""
        while self._begin() or self.workers.busy:
            for name, code in self.workers.ended():
                self._ended(self.runs[name], code)
            tick()
            if self.workers.busy:
                time.sleep(POLL_SECONDS)

    def stop(self) -> None:
        """Start no further runs; ask the running ones to save and exit."""
        self.stopping = True
        self.workers.stop()

    def _begin(self) -> bool:
        """Start waiting runs on free slots; whether any state changed."""
        changed = False
        for run in self.runs.values():
            if self.stopping or not self.workers.free:
                break
            if run.state == 'waiting':
                changed |= self._advance(run, 'waiting')
        return changed

    def _advance(self, run: Run, before: str) -> bool:
        """Take the run to its next state; False if it has to wait."""
        start = run.start
        if start is not None and start.state in ('failed', 'stopped'):
            reason = f'it starts from {start.name}, which {ENDED[start.state]}'
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
            self._set(
                run,
                'failed',
                'the command exited with 0 but did not write its result',
            )
        else:
            self.workers.start(run.name, step[1], run.log)
            run.log_command(step[1])
            self._set(run, step[0])
        return True

    def _ended(self, run: Run, code: int) -> None:
        if code == STOPPED or (code and self.stopping):
            self._set(run, 'stopped', CONTINUE)
        elif code:
            self._set(
                run, 'failed', f'{_describe_exit(code)}; {last_line(run)}'
            )
        elif self.stopping and run.next_step() is not None:
            self._set(run, 'stopped', CONTINUE)
        else:
            self._advance(run, run.state)

    def _set(self, run: Run, state: str, reason: str = '') -> None:
        run.state, run.reason = state, reason
        self.changed(run)


def last_line(run: Run) -> str:
    """Path and last line of the run's log."""
    text = run.log.read_text(errors='replace') if run.log.exists() else ''
    lines = [line for line in text.splitlines() if line.strip()]
    return f'{run.log} ends: {lines[-1].strip() if lines else "(empty)"}'


def _describe_exit(code: int) -> str:
    if code < 0:
        return f'killed by {signal.Signals(-code).name}'
    return f'exit code {code}'
