"""Runs that start from runs, places, failures and signals."""

import shlex
import sys
import time
from types import SimpleNamespace

import pytest

from fgc_mm.comparison import local_executor
from fgc_mm.comparison.local_executor import LocalExecutor
from fgc_mm.comparison.run_scheduler import RunScheduler
from fgc_mm.errors import FGCError
from tests.comparison.shell_steps import next_shell_step

STOPPABLE = (
    'import signal, sys, time\n'
    'signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))\n'
    "print('ready', flush=True)\n"
    'time.sleep(60)'
)


class FakeRun:
    """Two steps, each a shell command that leaves a file."""

    def __init__(self, folder, name, *commands, start=None):
        self.name = name
        self.start = start
        self.folder = folder / name
        self.folder.mkdir(exist_ok=True)
        self.log = self.folder / 'run.log'
        self.state, self.reason = 'waiting', ''
        self.commands = commands
        self.method = SimpleNamespace(epochs=1)

    def log_command(self, command):
        assert len(command) == 3

    def next_step(self):
        return next_shell_step(self.folder, self.commands)

    def trained(self):
        return (self.folder / 'trained').is_file()


def go(runs, jobs=2, finish=lambda run: None, during=None, **options):
    """All states that were seen, in order."""
    seen = []
    dispatcher = RunScheduler(
        runs,
        LocalExecutor(jobs, 1, **options),
        lambda run: seen.append((run.name, run.state)),
        finish,
    )
    dispatcher.go(lambda: during and during(dispatcher))
    return seen


def test_steps_follow_each_other_and_starts_come_first(tmp_path):
    first = FakeRun(tmp_path, 'first', 'sleep 0.5', 'true')
    second = FakeRun(tmp_path, 'second', 'true', start=first)
    third = FakeRun(tmp_path, 'third', 'true')
    finished = []
    seen = go([first, second, third], finish=lambda r: finished.append(r.name))
    assert {r.state for r in (first, second, third)} == {'done'}
    assert sorted(finished) == ['first', 'second', 'third']
    assert seen.index(('second', 'step 0')) > seen.index(('first', 'done'))
    assert seen.index(('third', 'done')) < seen.index(('first', 'done'))
    # again: all runs are done
    runs = [FakeRun(tmp_path, n, 'false', 'false') for n in ('first',)]
    (tmp_path / 'first' / '1').touch()
    assert go(runs) == [('first', 'done')]


def test_no_more_at_once_than_places(tmp_path):
    marks = tmp_path / 'marks'
    marks.mkdir()
    # each waits for another one, on however busy a machine
    count = f'ls {marks} | wc -l'
    wait = f'for i in 1 2 3 4 5 6 7 8 9; do [ $({count}) -ge 2 ] && break; '
    wait += 'sleep 0.3; done'
    command = f'touch {marks}/$$; {wait}; {count}; sleep 0.4; rm {marks}/$$'
    runs = [FakeRun(tmp_path, f'r{i}', command) for i in range(5)]
    go(runs, jobs=2)
    counts = [int(run.log.read_text()) for run in runs]
    assert max(counts) == 2


def test_one_that_fails_stops_only_those_that_start_from_it(tmp_path):
    bad = FakeRun(tmp_path, 'bad', 'echo so; echo error: no data; exit 3')
    after = FakeRun(tmp_path, 'after', 'true', start=bad)
    good = FakeRun(tmp_path, 'good', 'true')
    killed = FakeRun(tmp_path, 'killed', 'kill -9 $$')
    lazy = FakeRun(tmp_path, 'lazy', 'true')
    lazy.next_step = lambda: (
        'step 0',
        ['true', '-u', 'tool'],
    )  # leaves nothing
    trained = FakeRun(tmp_path, 'trained', 'true', start=bad)
    (trained.folder / 'trained').touch()  # needs its start no more
    go([bad, after, good, killed, lazy, trained])
    assert trained.state == 'done'
    assert good.state == 'done'
    assert bad.state == after.state == killed.state == 'failed'
    assert f'exit code 3; {bad.log} ends: error: no data' in bad.reason
    assert 'bad' in after.reason
    assert 'SIGKILL' in killed.reason
    assert lazy.state == 'failed' and 'did not write its result' in lazy.reason


def test_a_result_that_cannot_be_read_is_a_failure(tmp_path):
    def refuse(run):
        raise FGCError(f'{run.name} has no accuracy')

    run = FakeRun(tmp_path, 'run', 'true')
    go([run], finish=refuse)
    assert (run.state, run.reason) == ('failed', 'run has no accuracy')


def test_a_stop_ends_the_running_and_starts_nothing(tmp_path):
    script = tmp_path / 'wait.py'
    script.write_text(STOPPABLE)
    run = FakeRun(
        tmp_path, 'run', f'exec {shlex.quote(sys.executable)} -IS {script}'
    )
    waiting = FakeRun(tmp_path, 'waiting', 'true')

    def stop(dispatcher):
        if 'ready' in run.log.read_text():
            dispatcher.stop()

    go([run, waiting], jobs=1, during=stop)
    assert (run.state, waiting.state) == ('stopped', 'waiting')


def test_a_stop_during_a_start_ends_it_too(tmp_path, monkeypatch):
    """Before its process is started, and before it is listed."""
    steps = FakeRun.next_step
    popen = local_executor.subprocess.Popen
    run = FakeRun(tmp_path, 'run', 'exec sleep 60')
    executor = LocalExecutor(1, 1)
    scheduler = RunScheduler([run], executor, lambda run: None, None)

    def step_after_stop(run):
        scheduler.stop()
        return steps(run)

    def stop_after_popen(*command, **options):
        process = popen(*command, **options)
        scheduler.stop()
        return process

    for owner, name, stopped in (
        (FakeRun, 'next_step', step_after_stop),
        (local_executor.subprocess, 'Popen', stop_after_popen),
    ):
        run.state, scheduler.stopping = 'waiting', False
        executor._stopping = False
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, stopped)
            begun = time.monotonic()
            scheduler.go(lambda: None)
        assert run.state == 'stopped'
        assert time.monotonic() - begun < 30


@pytest.mark.parametrize(('devices', 'found'), [(['3', '5'], '3535')])
def test_gpus_in_turn(tmp_path, devices, found):
    command = 'echo $CUDA_VISIBLE_DEVICES $OMP_NUM_THREADS; sleep 1'
    runs = [FakeRun(tmp_path, f'r{i}', command) for i in range(4)]
    go(runs, jobs=4, devices=devices)
    said = [run.log.read_text().split() for run in runs]
    assert ''.join(gpu for gpu, _ in said) == found
    assert {threads for _, threads in said} == {'1'}


def test_a_launcher_starts_every_command(tmp_path):
    launcher = ['sh', '-c', 'echo launched; exec "$@"', 'srun']
    run = FakeRun(tmp_path, 'run', 'echo one', 'echo two')
    go([run], launcher=launcher)
    assert run.state == 'done'
    words = run.log.read_text().split()
    assert words == ['launched', 'one', 'launched', 'two']


def test_a_result_that_cannot_be_stored_is_a_failed_run(tmp_path):
    def finish(run):
        if run.name == 'first':
            raise OSError(30, 'Read-only file system', 'results/a.json')

    first, second = (FakeRun(tmp_path, n, 'true') for n in ('first', 'second'))
    go([first, second], finish=finish)
    assert (first.state, second.state) == ('failed', 'done')
    assert first.reason == 'results/a.json: Read-only file system'


def test_a_command_that_cannot_be_started_keeps_no_slot(tmp_path):
    first = FakeRun(tmp_path, 'first', 'true')
    second = FakeRun(tmp_path, 'second', 'true')
    first.log.mkdir(parents=True)  # so that it cannot be opened
    go([first, second], jobs=1)
    assert first.state == 'failed' and 'Is a directory' in first.reason
    assert second.state == 'done'
