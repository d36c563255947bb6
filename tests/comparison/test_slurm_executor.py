"""Runs as jobs: parameters, ends of jobs, and jobs of this machine."""

import os
import shlex
import signal
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import cloudpickle
import pytest
import submitit

from fgc_mm.cli.commands.compare import slurm_jobs
from fgc_mm.cli.dispatch import parse
from fgc_mm.comparison import slurm_executor, slurm_queue
from fgc_mm.comparison.run import Run
from fgc_mm.comparison.run_scheduler import RunScheduler
from fgc_mm.comparison.slurm_executor import RESULT_SECONDS, SlurmExecutor
from fgc_mm.comparison.slurm_job import UNFINISHED, take_steps
from fgc_mm.comparison.slurm_options import (
    PROGRAMS,
    slurm_options,
    submitit_executor,
)
from fgc_mm.errors import FGCError
from tests.comparison import shell_steps
from tests.comparison.shell_steps import next_shell_step

OPTIONS = {'timeout_min': 5, 'partition': 'gpu', 'cpus_per_task': 4}


class ShellRun(Run):
    """Each step is a shell command, which leaves a file."""

    def __init__(self, folder, name, *commands):
        method = SimpleNamespace(name=name, epochs=1)
        super().__init__(method, 0, folder / name)
        self.commands = commands

    def next_step(self):
        return next_shell_step(self.folder, self.commands)


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Slurm's programs on PATH; sbatch is what the test writes."""
    folder = tmp_path / 'bin'
    folder.mkdir()
    for name in PROGRAMS:
        (folder / name).write_text('#!/bin/sh\necho Submitted batch job 7\n')
        (folder / name).chmod(0o755)
    monkeypatch.setenv('PATH', f'{folder}:{os.environ["PATH"]}')
    return folder


def test_parameters_are_those_of_submitit():
    given = 'timeout_min=720', 'mem_gb=7.5', 'partition=gpu', 'gres=gpu:a100:1'
    assert slurm_options(given) == {
        'timeout_min': 720, 'mem_gb': 7.5, 'partition': 'gpu',
        'gres': 'gpu:a100:1',
    }  # fmt: skip


@pytest.mark.parametrize(
    ('pair', 'message'),
    [
        ('partitoin=gpu', "'partitoin' of --slurm partitoin=gpu is unknown; "),
        ('nodes=2', 'choose among account, '),  # a run is one process
        ('partition', '--slurm partition has no value; write partition=VALUE'),
        ('gpus_per_node=two', 'gpus_per_node=two is not a positive whole'),
        ('timeout_min=0', 'timeout_min=0 is not a positive whole number'),
        ('mem_gb=nan', 'mem_gb=nan is not a positive number'),
        ('qos=high', 'no timeout_min'),
    ],
)
def test_wrong_parameters(pair, message):
    with pytest.raises(FGCError) as error:
        slurm_options([pair])
    assert message in str(error.value) and '\n' not in str(error.value)


def test_slurm_or_a_launcher(monkeypatch):
    words = 'a.py --work-dir out --launcher srun\\ -n1 --slurm timeout_min=5'
    monkeypatch.setattr(sys, 'argv', ['compare', *shlex.split(words)])
    with pytest.raises(FGCError, match="and --launcher 'srun -n1' both start"):
        parse('compare')


def test_squeue_must_answer_before_jobs_are_submitted(programs, tmp_path):
    (programs / 'squeue').write_text('#!/bin/sh\nexit 1\n')
    args = SimpleNamespace(
        slurm=['timeout_min=5'], work_dir=tmp_path, threads=None, jobs=None
    )
    with pytest.raises(FGCError, match='squeue does not answer'):
        slurm_jobs(args)
    (programs / 'squeue').write_text('#!/bin/sh\nexit 0\n')
    executor, threads = slurm_jobs(args)
    assert executor.free and threads == 1


@pytest.mark.usefixtures('programs')
def test_without_slurm_or_submitit(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'submitit', None)
    with pytest.raises(FGCError, match='pip install submitit'):
        submitit_executor(OPTIONS, tmp_path)
    monkeypatch.setenv('PATH', str(tmp_path))
    with pytest.raises(FGCError, match='needs sbatch, which is not'):
        submitit_executor(OPTIONS, tmp_path)


def test_script_and_refusal(programs, tmp_path):
    executor = submitit_executor(OPTIONS, tmp_path / 'slurm')
    jobs = SlurmExecutor(executor, 1, print, lambda: {'7': 'PENDING'})
    run = ShellRun(tmp_path, 'run')
    assert jobs.start(run, 'step 0', ['true']) == 'queued'
    script = (tmp_path / 'slurm' / '7_submission.sh').read_text()
    for line in (
        '--partition=gpu', '--time=5', '--job-name=run_seed_0',
        '--signal=USR1@90', '--cpus-per-task=4',
    ):  # fmt: skip
        assert f'#SBATCH {line}\n' in script
    assert script.count('--cpus-per-task=4') == 2  # of srun, too
    (programs / 'sbatch').write_text(
        '#!/bin/sh\necho no such account >&2\nfalse'
    )
    # job 7 is in the queue: nothing is submitted
    assert jobs.start(run, 'step 0', ['true']) == 'queued'
    with pytest.raises(FGCError, match=r'the job: no such account$'):
        jobs.start(ShellRun(tmp_path, 'other'), 'step 0', ['true'])


@pytest.mark.usefixtures('programs')
def test_jobs_do_not_inherit_the_job_of_the_comparison(tmp_path, monkeypatch):
    for name in ('SLURM_JOB_ID', 'SLURM_MEM_PER_NODE', 'SLURM_CONF'):
        monkeypatch.setenv(name, '1')
    submitit_executor(OPTIONS, tmp_path / 'slurm')
    assert [x for x in os.environ if x.startswith('SLURM_')] == ['SLURM_CONF']


class Jobs:
    """Stands for Slurm and for submitit: job 1, then job 2, ..."""

    def __init__(self, folder):
        self.folder = folder
        self.state = 'RUNNING'
        self.result = None
        self.cancelled = []
        self.count = 0

    def update_parameters(self, name):
        assert name == 'run_seed_0'

    def submit(self, take, run):
        self.count += 1
        number = str(self.count)
        paths = submitit.core.utils.JobPaths(self.folder, number, 0)
        return SimpleNamespace(
            job_id=number,
            paths=paths,
            stdout=lambda: 'step: training\n',
            cancel=lambda check: self.cancelled.append(number),
            result=lambda: self.result,
        )

    def states(self):
        return {str(self.count): self.state}

    def end(self, state, result=None):
        """The last job ends in this state, and has returned this."""
        self.state, self.result = state, result
        if result is not None:
            (self.folder / f'{self.count}_0_result.pkl').touch()


@pytest.fixture
def started(tmp_path):
    """Slurm, and a run whose job has begun to train."""
    slurm = Jobs(tmp_path)
    jobs = SlurmExecutor(slurm, 1, print, slurm.states, 0)
    run = ShellRun(tmp_path, 'run')
    jobs.start(run, 'step 0', ['true'])
    assert not jobs.free
    (event,) = jobs.poll()
    assert (event.name, event.state) == ('run seed 0', 'training')
    assert jobs.poll() == []
    return slurm, jobs, run


@pytest.mark.parametrize(
    ('state', 'result', 'saves', 'reason'),
    [
        ('PREEMPTED', None, False, 'again, since its job was PREEMPTED'),
        ('NODE_FAIL', None, False, 'again, since its job was NODE_FAIL'),
        ('TIMEOUT', None, True, 'again, since its job ran out of time'),
        ('COMPLETED', UNFINISHED, True, 'again, since its job ran out of'),
    ],
)
def test_submitted_again(started, state, result, saves, reason):
    slurm, jobs, run = started
    if saves:
        (run.folder / 'interrupted.pth').touch()
    slurm.end(state, result and (result, ''))
    (event,) = jobs.poll()
    assert event.state == 'queued' and event.reason.startswith(reason)
    assert jobs.busy and slurm.count == 2
    assert (run.folder / 'slurm_job.txt').read_text() == '2\n'


@pytest.mark.parametrize(
    ('state', 'result', 'code', 'reason'),
    [
        ('COMPLETED', ('done', ''), 0, ''),
        ('COMPLETED', ('failed', 'no data'), 1, 'no data'),
        ('CANCELLED', None, 1, 'Slurm job 1 was cancelled; run the same'),
        ('CANCELLED', (UNFINISHED, ''), 1, 'Slurm job 1 was cancelled; run'),
        ('TIMEOUT', None, 1, 'Slurm job 1 ran out of time before it had'),
        ('COMPLETED', (UNFINISHED, ''), 1, 'Slurm job 1 ran out of time'),
        ('OUT_OF_MEMORY', None, 1, 'Slurm job 1 ended as OUT_OF_MEMORY; '),
    ],
)
def test_ends_of_a_job(started, tmp_path, state, result, code, reason):
    slurm, jobs, _ = started
    (tmp_path / '1_0_log.err').write_text('oom killed\n')
    slurm.end(state, result)
    (event,) = jobs.poll()
    assert (event.state, event.code) == ('', code)
    assert event.reason.startswith(reason)
    if state == 'OUT_OF_MEMORY':
        assert event.reason.endswith('1_0_log.err ends: oom killed')
    assert not jobs.busy and slurm.count == 1


def test_waits_for_an_answer_and_for_files(started):
    slurm, jobs, _ = started
    slurm.states, answers = None, [None, None, {}, {'1': 'COMPLETED'}, None]
    jobs.states = lambda: answers.pop(0)
    told = [jobs.poll() for _ in range(5)]
    assert [[event.reason[:16] for event in events] for events in told] == [
        ['squeue does not '], [], ['squeue answers a'], [],
        ['squeue does not '],
    ]  # fmt: skip
    assert {(e.name, e.state) for events in told for e in events} == {
        ('run seed 0', 'training')
    }
    assert jobs.busy


def test_a_job_that_squeue_left_out_once_is_waited_for_again(
    started, monkeypatch
):
    _, jobs, _ = started
    now = [time.monotonic()]
    monkeypatch.setattr(slurm_executor.time, 'monotonic', lambda: now[0])
    for answer in ({}, {'1': 'RUNNING'}, {}):
        jobs.states = partial(dict, answer)
        assert jobs.poll() == []
        now[0] += RESULT_SECONDS + 1
    assert jobs.busy


def test_an_earlier_job_without_an_answer_of_squeue(started):
    slurm, _, run = started
    jobs = SlurmExecutor(slurm, 1, print, lambda: None)
    with pytest.raises(
        FGCError, match=r'whether the job of .* has ended; run'
    ):
        jobs.start(run, 'step 0', ['true'])
    assert slurm.count == 1 and not jobs.busy


def test_a_damaged_file_of_the_earlier_job(started):
    slurm, _, run = started
    (run.folder / 'slurm_job.txt').write_bytes(b'\xff\xfe1')
    SlurmExecutor(slurm, 1, print, slurm.states).start(run, 'step 0', [])
    assert slurm.count == 2
    assert (run.folder / 'slurm_job.txt').read_text() == '2\n'


def test_ctrl_c_does_not_end_sbatch(programs, tmp_path):
    (programs / 'sbatch').write_text(
        '#!/bin/sh\nkill -INT $$ $PPID; echo Submitted batch job 7\n'
    )
    executor = submitit_executor(OPTIONS, tmp_path / 'slurm')
    jobs = SlurmExecutor(executor, 1, print, dict)
    old = signal.signal(signal.SIGINT, lambda *_: jobs.stop())
    try:
        jobs.start(ShellRun(tmp_path, 'run'), 'step 0', ['true'])
    finally:
        signal.signal(signal.SIGINT, old)
    assert jobs.busy and jobs._stopping


def test_a_squeue_that_hangs(programs, monkeypatch):
    monkeypatch.setattr(slurm_queue, 'ANSWER_SECONDS', 0.1)
    (programs / 'squeue').write_text('#!/bin/sh\nexec sleep 60\n')
    assert slurm_queue.queue_states() is None
    (programs / 'squeue').write_text("#!/bin/sh\nprintf '7|\\377'\n")
    monkeypatch.setattr(slurm_queue, 'ANSWER_SECONDS', 20)
    assert list(slurm_queue.queue_states()) == ['7']


def test_a_stop_cancels(started):
    slurm, jobs, _ = started
    jobs.stop()
    assert slurm.cancelled == ['1']
    slurm.end('CANCELLED')
    (event,) = jobs.poll()
    assert event.code == 75 and not jobs.busy


class Local(submitit.LocalExecutor):
    """Jobs on this machine, whose states are known as from squeue."""

    def __init__(self, folder):
        script = folder.with_suffix('.py')  # a script starts sooner: conftest
        script.write_text(
            'import sys\n'
            'from submitit.core.submission import process_job\n'
            'process_job(sys.argv[-1])\n'
        )
        super().__init__(folder, python=f'{sys.executable} {script}')
        self.update_parameters(timeout_min=30)
        self.sent = []

    def submit(self, *arguments):
        job = super().submit(*arguments)
        # as scancel does; submitit sends SIGINT, which a job ignores if the
        # tests run in the background of a shell
        process = job._process
        job.cancel = lambda check: process.send_signal(signal.SIGTERM)
        self.sent.append(job)
        return job

    def states(self):
        states = 'RUNNING', 'COMPLETED'
        return {job.job_id: states[job.done()] for job in self.sent}


def test_jobs_on_this_machine(tmp_path):
    for module in sys.modules[__name__], shell_steps:
        cloudpickle.register_pickle_by_value(module)
    good = ShellRun(tmp_path, 'good', 'echo $OMP_NUM_THREADS', 'true')
    bad = ShellRun(tmp_path, 'bad', 'echo error: no data; exit 3')
    endless = ShellRun(tmp_path, 'endless', 'echo ready; exec sleep 600')
    runs = good, bad, endless
    executor = Local(tmp_path / 'jobs')
    take = partial(take_steps, threads=3, finish=print)
    jobs = SlurmExecutor(executor, 3, take, executor.states, 0.2)
    seen = []
    scheduler = RunScheduler(
        runs, jobs, lambda run: seen.append((run.name, run.state)), lambda _: 0
    )

    def tick():
        if scheduler.stopping or {good.state, bad.state} != {'done', 'failed'}:
            return
        if endless.state == 'step 0':
            scheduler.stop()

    scheduler.go(tick)
    assert [s for n, s in seen if n == good.name][-1] == 'done'
    assert seen[0] == ('good seed 0', 'queued')
    assert good.log.read_text() == '3\n'
    assert f'exit code 3; {bad.log} ends: error: no data' in bad.reason
    assert endless.state == 'stopped'
    out = sorted(Path(executor.folder).glob('*_0_log.out'))
    assert len(out) == 3
