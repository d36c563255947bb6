"""The function of a Slurm job, which runs all steps of one run."""

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

from fgc_mm.reliability.stop_signal import SIGNALS

from .local_executor import LocalExecutor
from .run import Run
from .run_scheduler import RunScheduler

# Slurm sends SIGUSR1 this long before a job's time limit; a training then
# saves a checkpoint and exits (reliability/stop_signal.py).
SAVE_SECONDS = 90
STEP = 'step: '  # before the state, in the log of the job
UNFINISHED = 'stopped'


def take_steps(
    run: Run, threads: int, finish: Callable[[Run, int], Any]
) -> tuple[str, str]:
    """Runs all steps of a run, like a comparison with a single run.

    Args:
        run: The run.
        threads: Of each command.
        finish: Called with run and threads when it is trained and tested.

    Returns:
        The last state (done, failed, or UNFINISHED after a signal) and the
        reason.
    """
    run.state = 'waiting'
    scheduler = RunScheduler(
        [run],
        LocalExecutor(1, threads),
        _show,
        lambda run: finish(run, threads),
    )

    def stop(_: int, __: FrameType | None) -> None:
        scheduler.stop()

    for number in (*SIGNALS, signal.SIGINT):
        signal.signal(number, stop)
    scheduler.go(lambda: None)
    ended = run.state in ('done', 'failed')
    return run.state if ended else UNFINISHED, run.reason


def last_step(log: str | None) -> str | None:
    """The current step of a job, from its log."""
    lines = (log or '').splitlines()
    steps = [x.removeprefix(STEP) for x in lines if x.startswith(STEP)]
    return steps[-1] if steps else None


def _show(run: Run) -> None:
    if run.state not in ('done', 'failed', 'stopped'):
        print(f'{STEP}{run.state}', flush=True)
