"""tools/slurm_train.sh on a real Slurm of two nodes."""

import re
import sys
import time
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
TOOLS, CONFIG = ROOT / 'tools', ROOT / 'configs' / 'fgc_resnet20_digits.py'
OPTIONS = [
    '--no-validate', '--cfg-options',
    'randomness.seed=5', 'train_cfg.max_epochs=2',
    'train_dataloader.batch_size=8', 'train_dataloader.dataset.indices=48',
    'model.backbone.backbone.base_channels=4', 'model.head.in_channels=16',
    'model.gate_losses.2.num_neighbors=5',
    'model.gate_losses.2.warmup_epochs=0',
    'model.gate_losses.2.loss_weight=0.01',
    'default_hooks.checkpoint.interval=1',
    'default_hooks.checkpoint.save_best=None',
    'default_hooks.checkpoint.max_keep_ckpts=1',
    'default_hooks.logger.interval=1',
    'env_cfg.dist_cfg.timeout=60',
]  # fmt: skip

# Records which process trained where; can wait, or kill its process.
TOLD = """
import os, signal, time
from pathlib import Path
from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module()
class ToldHook(Hook):
    def before_train_iter(self, runner, batch_idx, data_batch=None):
        folder, rank = Path(runner.work_dir), get_rank()
        node = os.environ.get('SLURMD_NODENAME', 'none')
        note = folder / f'told-{rank}-of-{get_world_size()}-on-{node}'
        with note.open('a') as file:
            print(runner.iter, file=file)
        if runner.iter < 4:
            return
        if (folder / 'wait').exists() and not os.environ.get(
                'SLURM_RESTART_COUNT'):
            time.sleep(300)
        if (folder / 'die').exists() and rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def folder(tmp_path):
    """Where the runs go; with the module that they import."""
    (tmp_path / 'told.py').write_text(TOLD)
    return tmp_path


def environment(folder):
    return dict(
        PYTHON=sys.executable,
        PYTHONPATH=str(folder),
        GPUS='2',
        GPUS_PER_NODE='1',
        CPUS_PER_TASK='1',
        GRES='',
        OMP_NUM_THREADS='1',
    )


def config(folder):
    """The digits config, and the hook that notes."""
    path = folder / 'config.py'
    path.write_text(
        f'_base_ = {str(CONFIG)!r}\n'
        "custom_imports = dict(imports=['fgc_mm', 'told'])\n"
        "custom_hooks = [*_base_.custom_hooks, dict(type='ToldHook')]\n"
    )
    return path


def slurm_train(folder, work_dir):
    work_dir.mkdir(exist_ok=True)
    return [TOOLS / 'slurm_train.sh', 'cpu', 'digits', config(folder),
            work_dir, *OPTIONS]  # fmt: skip


def torchrun_train(folder, work_dir):
    work_dir.mkdir(exist_ok=True)
    return [TOOLS / 'dist_train.sh', config(folder), 2, '--work-dir',
            work_dir, *OPTIONS]  # fmt: skip


def notes(work_dir):
    """Iterations by rank, world size and node."""
    return {
        tuple(path.name.split('-')[1::2]): path.read_text().split()
        for path in work_dir.glob('told-*')
    }


def checkpoint(work_dir):
    (path,) = work_dir.glob('*.pth')
    assert path.name == 'epoch_2.pth'
    return torch.load(path, weights_only=False)


def assert_same(one, other):
    assert one['meta']['iter'] == other['meta']['iter'] == 6
    for kind in ('state_dict', 'fgc_memory_banks', 'optimizer'):
        torch.testing.assert_close(one[kind], other[kind], rtol=0, atol=0)


@pytest.fixture(scope='module')
def reference(slurm, tmp_path_factory):
    """The same training started by torchrun."""
    folder = tmp_path_factory.mktemp('torchrun')
    (folder / 'told.py').write_text(TOLD)
    command = torchrun_train(folder, folder / 'work')
    done = slurm.run(*command, **environment(folder))
    assert done.returncode == 0, done.stdout
    return checkpoint(folder / 'work')


def test_two_nodes_train_what_torchrun_trains(slurm, folder, reference):
    work_dir = folder / 'a work dir'
    done = slurm.run(*slurm_train(folder, work_dir), **environment(folder))
    assert done.returncode == 0, done.stdout
    steps = list(map(str, range(6)))
    assert notes(work_dir) == {
        ('0', '2', 'n1'): steps,
        ('1', '2', 'n2'): steps,
    }
    assert len(list(work_dir.glob('*/*.log'))) == 1
    assert float(re.search(r'loss_coupling: (\S+)', done.stdout)[1]) > 0
    assert len(re.findall(r'Epoch\(train\) +\[2\]\[3/3\]', done.stdout)) == 1
    assert_same(checkpoint(work_dir), reference)


def test_a_requeued_job_resumes(slurm, folder, reference):
    work_dir = folder / 'work'
    command = slurm_train(folder, work_dir)
    (work_dir / 'wait').touch()  # in the second epoch of the first start
    script = folder / 'job.sh'
    words = ' '.join(f"'{word}'" for word in command)
    script.write_text(f'#!/bin/sh\nexec {words}\n')
    out = folder / 'out.txt'
    done = slurm.run(
        'sbatch', '--requeue', '--parsable', '-pcpu', '-N2', '-n2',
        '--ntasks-per-node=1', '--open-mode=append', f'--output={out}', script,
        **environment(folder),
    )  # fmt: skip
    job = done.stdout.strip()
    assert done.returncode == 0 and job.isdigit(), done.stdout
    slurm.wait(lambda: '4' in notes(work_dir).get(('1', '2', 'n2'), ()))
    assert (work_dir / 'epoch_1.pth').exists()
    done = slurm.run('scontrol', 'requeue', job)
    assert done.returncode == 0, done.stdout

    def trained():
        # Slurm holds a requeued job back for two minutes, unless set
        slurm.run('scontrol', 'update', f'JobId={job}', 'StartTime=now')
        return (work_dir / 'epoch_2.pth').exists()

    slurm.wait(trained, 240)
    show = slurm.run('scontrol', 'show', 'job', job).stdout
    assert 'Restarts=1' in show
    steps = notes(work_dir)['0', '2', 'n1']
    assert steps == ['0', '1', '2', '3', '4', '3', '4', '5']
    slurm.wait(lambda: 'COMPLETED' in slurm.run(
        'scontrol', 'show', 'job', job).stdout)  # fmt: skip
    # as without an interruption: weights and banks, bit for bit
    assert_same(checkpoint(work_dir), reference)


@pytest.mark.parametrize('launcher', ['slurm', 'torchrun'])
def test_a_killed_rank_ends_the_job(slurm, folder, launcher):
    work_dir = folder / 'work'
    train = dict(slurm=slurm_train, torchrun=torchrun_train)[launcher]
    command = train(folder, work_dir)
    (work_dir / 'die').touch()
    start = time.monotonic()
    done = slurm.run(*command, **environment(folder))
    assert time.monotonic() - start < 60 + 60  # the timeout, and to begin
    # srun returns the larger one, 143 of the rank that it has ended
    assert done.returncode in (137, 143), done.stdout
    said = {
        'slurm': 'n2: task 1: Killed',
        'torchrun': 'error: rank 1 was killed by SIGKILL',
    }
    assert said[launcher] in done.stdout
