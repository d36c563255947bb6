"""Scheduler: starts the runs of a comparison as worker slots become free."""

import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from fgc_mm.exit_status import STOPPED

from ..errors import FGCError
from .executor import Event, Executor
from .run import Run

POLL_SECONDS = 0.2
ENDED = {'failed': 'failed', 'stopped': 'was stopped'}
CONTINUE = 'run the same command again to continue'


class RunScheduler:
    """Runs all steps of every run.

    A run that is not trained waits until the run from which it starts is
    done. If a run fails, only the runs that start from it are cancelled.

    Args:
        runs: The runs, in the order in which they are begun.
        executor: Starts the steps: on this machine, or as Slurm jobs.
        changed: Called after every state change; for a finished run, after
            ``finish``.
        finish: Called when a run is trained and tested; if it raises
            FGCError the run counts as failed.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        executor: Executor,
        changed: Callable[[Run], None],
        finish: Callable[[Run], None],
    ) -> None:
        self.runs = {run.name: run for run in runs}
        self.executor = executor
        self.changed = changed
        self.finish = finish
        self.stopping = False

    def go(self, tick: Callable[[], None]) -> None:
        """Run until all have ended, calling ``tick`` at every poll."""
        while self._begin() or self.executor.busy:
            for event in self.executor.poll():
                self._take(self.runs[event.name], event)
            tick()
            if self.executor.busy:
                time.sleep(POLL_SECONDS)

    def stop(self) -> None:
        """Start no further runs; make the running ones save and exit."""
        self.stopping = True
        self.executor.stop()

    def _begin(self) -> bool:
        """Start waiting runs on free slots; whether any state changed."""
        changed = False
        for run in self.runs.values():
            if self.stopping or not self.executor.free:
                break
            if run.state == 'waiting':
                changed |= self._advance(run, 'waiting')
        return changed

    def _advance(self, run: Run, before: str) -> bool:
        """Bring the run into its next state; False if it has to wait."""
        start = None if run.trained() else run.start
        if start is not None and start.state in ('failed', 'stopped'):
            reason = f'it starts from {start.name}, which {ENDED[start.state]}'
            self._set(run, start.state, reason)
            return True
        if start is not None and start.state != 'done':
            return False
        try:
            state, reason = self._next(run, before), ''
        except FGCError as error:
            state, reason = 'failed', str(error)
        except OSError as error:  # e.g. the disk is full
            named = error.filename and f'{error.filename}: {error.strerror}'
            state, reason = 'failed', named or str(error)
        self._set(run, state, reason)
        return True

    def _next(self, run: Run, before: str) -> str:
        """Start the run's next step, or finish it; its new state."""
        step = run.next_step()
        if step is None:
            self.finish(run)
            return 'done'
        if step[0] == before:
            raise FGCError(
                'the command exited with 0 but did not write its result; '
                f'see {run.log}'
            )
        return self.executor.start(run, *step)

    def _take(self, run: Run, event: Event) -> None:
        if event.state:
            self._set(run, event.state, event.reason)
        elif event.code == STOPPED or (event.code and self.stopping):
            self._set(run, 'stopped', CONTINUE)
        elif event.code:
            text = f'{_describe_exit(event.code)}; {last_line(run.log)}'
            self._set(run, 'failed', event.reason or text)
        elif self.stopping and run.next_step() is not None:
            self._set(run, 'stopped', CONTINUE)
        else:
            self._advance(run, run.state)

    def _set(self, run: Run, state: str, reason: str = '') -> None:
        run.state, run.reason = state, reason
        self.changed(run)


def last_line(log: Path) -> str:
    """Path and last line of a log."""
    text = log.read_text('utf-8', 'replace') if log.exists() else ''
    lines = [line for line in text.splitlines() if line.strip()]
    return f'{log} ends: {lines[-1].strip() if lines else "(empty)"}'


def _describe_exit(code: int) -> str:
    if code < 0:
        return f'killed by {signal.Signals(-code).name}'
    return f'exit code {code}'
