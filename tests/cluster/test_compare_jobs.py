"""A comparison whose runs are jobs of a real Slurm."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMPARE = ROOT / 'tools' / 'compare.py'
TINY = """
_base_ = ['{root}/configs/dense_resnet20_digits.py']
model = dict(backbone=dict(base_channels=4), head=dict(in_channels={inputs}))
train_dataloader = dict(batch_size=8, dataset=dict(indices={images}))
val_dataloader = dict(dataset=dict(indices=60))
test_dataloader = val_dataloader
default_hooks = dict(logger=dict(interval=2))
"""


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / 'a comparison'
    folder.mkdir()
    for name, images, inputs in (
        ('tiny', 400, 16),
        ('long', 1200, 16),
        ('broken', 80, 17),
    ):
        text = TINY.format(root=ROOT, images=images, inputs=inputs)
        (folder / f'{name}.py').write_text(text)
    return folder


@pytest.fixture
def start(slurm, folder):
    """Starts a comparison; nothing of it is left after the test."""
    processes = []

    def start(*arguments, epochs=2, partition='cpu'):
        process = subprocess.Popen(
            [
                sys.executable, '-W', 'ignore', str(COMPARE), *arguments,
                '--work-dir', 'out', '--epochs', str(epochs),
                '--slurm', f'partition={partition}', 'cpus_per_task=1',
                'timeout_min=30',
            ],
            cwd=folder, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**slurm.env, 'OMP_NUM_THREADS': '1'},
        )  # fmt: skip
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
    slurm.run('scancel', '--full', '--partition=cpu')
    slurm.wait(lambda: not queue(slurm))


def end(process):
    text, _ = process.communicate(timeout=600)
    assert 'Traceback' not in text, text
    return process.returncode, text


def queue(slurm):
    """Id of each job that has not ended, by its name."""
    lines = slurm.run('squeue', '-h', '--format=%j|%i').stdout.split()
    return dict(line.split('|') for line in lines)


def wait_for_training(slurm, folder, name):
    log = folder / 'out' / 'runs' / name / 'run.log'
    slurm.wait(
        lambda: log.is_file() and 'Epoch(train)' in log.read_text(), 600
    )


def test_every_run_is_a_job(slurm, folder, start):
    process = start('tiny.py', '--seeds', '0', '1')
    slurm.wait(lambda: set(queue(slurm)) == {'tiny_seed_0', 'tiny_seed_1'})
    wait_for_training(slurm, folder, 'tiny/seed0')
    # the training waits until the comparison has seen it
    pids = ['-f', ' train .*runs/tiny/seed0']
    slurm.run('pkill', '-STOP', *pids)
    before = ''
    while 'tiny seed 0: training' not in before:
        line = process.stdout.readline()
        assert line, before
        before += line
    # the signal that Slurm sends before the end of the time
    slurm.run('scancel', '--signal=USR1', queue(slurm)['tiny_seed_0'])
    slurm.run('pkill', '-CONT', *pids)
    code, text = end(process)
    text = before + text
    assert code == 0, text
    told = [x for x in text.splitlines() if x.startswith('tiny seed 0: ')]
    states = [line.split(': ')[1].split(' ')[0] for line in told]
    assert states[:2] == ['queued', 'training'] and states[-1] == 'done'
    assert 'queued: again, since its job ran out of time' in text
    out = folder / 'out'
    for seed in '01':
        run = out / 'runs' / 'tiny' / f'seed{seed}'
        assert json.loads((run / 'result.json').read_text())['epochs'] == 2
        steps = (run / 'commands.txt').read_text().splitlines()
        assert [step.split()[1] for step in steps[-2:]] == ['train', 'test']
        assert len(steps) == (3 if seed == '0' else 2)
    assert len(list((out / 'slurm').glob('*_log.out'))) == 3
    assert (out / 'compare.md').is_file()


def test_failed_and_cancelled_jobs(slurm, folder, start):
    process = start('long.py', 'broken.py', '--seeds', '0', epochs=50)
    wait_for_training(slurm, folder, 'long/seed0')
    job = queue(slurm)['long_seed_0']
    slurm.run('scancel', job)
    code, text = end(process)
    assert code == 1
    errors = [x for x in text.splitlines() if x.startswith('error: ')]
    assert len(errors) == 2
    assert (
        f'long seed 0 has failed: Slurm job {job} was cancelled; run the '
        'same command again' in errors[0]
    )
    # as without Slurm
    path = Path('out', 'runs', 'broken', 'seed0', 'run.log')
    assert f'exit code 2; {path} ends: error: ' in errors[1]
    assert 'mat1 and mat2' in errors[1]


def test_a_comparison_that_is_killed_and_one_that_is_stopped(
    slurm, folder, start
):
    first = start('long.py', '--seeds', '0', '1', '--jobs', '1', epochs=500)
    wait_for_training(slurm, folder, 'long/seed0')
    first.kill()
    first.wait()
    before = queue(slurm)
    assert set(before) == {'long_seed_0'}
    again = start('long.py', '--seeds', '0', '1', '--jobs', '1', epochs=500)
    line = ''
    while 'training' not in line:
        line = again.stdout.readline()
        assert line
    assert queue(slurm) == before  # it waits for the job of the first one
    again.send_signal(signal.SIGINT)
    code, text = end(again)
    assert code == 75 and 'stopped by SIGINT' in text
    assert not queue(slurm)
    run = folder / 'out' / 'runs' / 'long' / 'seed0'
    assert (run / 'last_checkpoint').read_text().endswith('interrupted.pth')


def test_a_job_that_slurm_refuses(start):
    code, text = end(start('tiny.py', '--seeds', '0', partition='none'))
    assert code == 1
    (line,) = (x for x in text.splitlines() if x.startswith('error: '))
    assert line.startswith(
        'error: tiny seed 0 has failed: Slurm has refused the job: sbatch: '
    )
