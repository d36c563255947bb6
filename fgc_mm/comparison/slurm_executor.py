"""Runs the runs of a comparison as Slurm jobs, with submitit."""

import io
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path

import submitit

from fgc_mm.exit_status import STOPPED

from ..errors import FGCError
from .executor import Event
from .run import Run
from .run_scheduler import CONTINUE, last_line
from .slurm_job import UNFINISHED, last_step
from .slurm_queue import OVER, UNKNOWN, queue_states

LOOK_SECONDS = 10.0  # between two reads of the queue
RESULT_SECONDS = 30.0  # until a file that another node has written is seen
QUEUED = 'queued'
SILENT = 'squeue does not answer and is asked again until it does'
LOST = 'PREEMPTED', 'NODE_FAIL', 'BOOT_FAIL'  # through no fault of the job


@dataclass
class _Started:
    run: Run
    job: submitit.Job
    saved: int  # time of the newest checkpoint before the job
    step: str = QUEUED
    over: float = 0.0  # time at which its end was seen without a result


@dataclass
class SlurmExecutor:
    """One job for each run, as an Executor of the scheduler.

    A job that was preempted, lost its node or ran out of time is submitted
    again; the run is resumed. A job of an earlier comparison in the same work
    dir that has not ended is waited for.

    Attributes:
        executor: Its folder gets the scripts, logs and results of the jobs.
        jobs: Number of jobs at a time, those that wait in the queue included.
        take: Run in each job; returns the run's state, and the reason.
        states: Returns the state of each job by id; None if Slurm does not
            answer.
        seconds: Between two calls of ``states``.
    """

    executor: submitit.Executor
    jobs: int
    take: Callable[[Run], tuple[str, str]]
    states: Callable[[], dict[str, str] | None] = queue_states
    seconds: float = LOOK_SECONDS

    def __post_init__(self) -> None:
        self._started: dict[str, _Started] = {}
        self._next_look = 0.0
        self._answered = True
        self._stopping = False

    @property
    def free(self) -> bool:
        """Whether another job may be submitted."""
        return len(self._started) < self.jobs

    @property
    def busy(self) -> bool:
        """Whether a job has not ended."""
        return bool(self._started)

    def start(self, run: Run, step: str, command: list[str]) -> str:
        """Submits a job, which finds the run's steps itself."""
        run.folder.mkdir(parents=True, exist_ok=True)
        self._watch(run, self._earlier(run) or self._submit(run))
        return QUEUED

    def poll(self) -> list[Event]:
        """New steps of the jobs, and the jobs that have ended."""
        if time.monotonic() < self._next_look:
            return []
        states = self.states()
        self._next_look = time.monotonic() + self.seconds
        before, self._answered = self._answered, states is not None
        if states is None:
            return self._tell(SILENT) if before else []
        found = [] if before else self._tell('squeue answers again')
        for one in list(self._started.values()):
            state = states.get(one.job.job_id, UNKNOWN)
            if state in OVER:
                event = self._end(one, state)
            else:
                one.over, event = 0.0, _step(one)
            if event is not None:
                found.append(event)
        return found

    def _tell(self, reason: str) -> list[Event]:
        """An event with this reason for every run that has a job."""
        watched = self._started.items()
        return [Event(name, one.step, reason=reason) for name, one in watched]

    def stop(self) -> None:
        """Cancels all jobs; running ones save a checkpoint first."""
        self._stopping = True
        self.seconds, self._next_look = min(self.seconds, 1), 0.0
        for one in list(self._started.values()):
            one.job.cancel(check=False)

    def _earlier(self, run: Run) -> submitit.Job | None:
        """The job of an earlier comparison that has not ended, if any."""
        file = _id_file(run)
        if not file.is_file():
            return None
        number = file.read_text('utf-8', 'replace').strip()
        states = self.states()
        if states is None:
            raise FGCError(
                f'squeue does not answer whether the job of {file} has '
                f'ended; {CONTINUE}'
            )
        if states.get(number, UNKNOWN) in OVER:
            return None
        return submitit.SlurmJob(self.executor.folder, number)

    def _watch(self, run: Run, job: submitit.Job) -> None:
        self._started[run.name] = _Started(run, job, _last_save(run))
        if self._stopping:  # a signal arrived during the submission
            job.cancel(check=False)

    def _submit(self, run: Run) -> submitit.Job:
        self.executor.update_parameters(name=run.name.replace(' ', '_'))
        try:
            # the error contains what sbatch has written to stderr
            with redirect_stderr(io.StringIO()), _ctrl_c_later():
                job = self.executor.submit(self.take, run)
        except RuntimeError as error:
            lines = [x for x in str(error).splitlines() if x.strip()]
            text = lines[-1].strip() if lines else 'it gives no reason'
            raise FGCError(f'Slurm has refused the job: {text}') from None
        _id_file(run).write_text(f'{job.job_id}\n', 'utf-8')
        return job

    def _end(self, one: _Started, state: str) -> Event | None:
        """The event for the end of a job; None until its result is known."""
        name, result = one.run.name, _result(one.job)
        if result is None and state in ('COMPLETED', UNKNOWN):
            one.over = one.over or time.monotonic()
            if time.monotonic() < one.over + RESULT_SECONDS:
                return None
        del self._started[name]
        if result is not None and result[0] != UNFINISHED:
            list(one.run.folder.iterdir())  # lets NFS show new files
            return Event(name, code=int(result[0] != 'done'), reason=result[1])
        if self._stopping:
            return Event(name, code=STOPPED)
        problem = _problem(one, state, result is None)
        if problem is not None:
            return Event(name, code=1, reason=problem)
        try:
            self._watch(one.run, self._submit(one.run))
        except FGCError as error:
            return Event(name, code=1, reason=str(error))
        what = 'ran out of time' if state not in LOST else f'was {state}'
        return Event(name, QUEUED, reason=f'again, since its job {what}')


@contextmanager
def _ctrl_c_later() -> Iterator[None]:
    """Keeps Ctrl-C from ending sbatch before it has printed the job's id."""
    old = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)


def _step(one: _Started) -> Event | None:
    """The step that a job has begun, if it has changed."""
    step = last_step(one.job.stdout()) or QUEUED
    if step == one.step:
        return None
    one.step = step
    return Event(one.run.name, step)


def _result(job: submitit.Job) -> tuple[str, str] | None:
    """The result of a job; None if it has none or has raised an error."""
    if job.paths.result_pickle not in job.paths.folder.iterdir():
        return None
    try:
        return job.result()
    except RuntimeError:  # its traceback is in the log
        return None


def _problem(one: _Started, state: str, silent: bool) -> str | None:
    """Why an unfinished job must not be submitted again; None if it may be.

    It is silent if it has no result.
    """
    if state in LOST:
        return None
    what = f'Slurm job {one.job.job_id}'
    if state == 'CANCELLED':
        return f'{what} was cancelled; {CONTINUE}'
    if silent and state != 'TIMEOUT':
        return f'{what} ended as {state}; {last_line(one.job.paths.stderr)}'
    if _last_save(one.run) == one.saved:
        return (
            f'{what} ran out of time before it had saved a checkpoint; give '
            '--slurm a larger timeout_min'
        )
    return None


def _id_file(run: Run) -> Path:
    return run.folder / 'slurm_job.txt'


def _last_save(run: Run) -> int:
    """Time of the run's newest checkpoint; 0 if there is none."""
    files = run.folder.rglob('*.pth')
    return max((file.stat().st_mtime_ns for file in files), default=0)
