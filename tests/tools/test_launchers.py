"""The launch scripts, for real: several processes, gloo, no GPU."""

import json
import os
import pickle
import re
import signal
import stat
import subprocess
import sys

import pytest
import torch
from mmengine.config import Config

from fgc_mm.cli import launch
from fgc_mm.errors import FGCError
from fgc_mm.exit_status import STOP_FILE
from fgc_mm.reliability import ranks

from .conftest import TOOLS, error_lines, run

PAIR = '--cfg-options'
NO_GPU = dict(CUDA_VISIBLE_DEVICES='-1')

# A dataset that only one of the processes finds fault with, and late: the
# other one is waiting for it by then.
ONE_SIDED = """
import time
import torch.distributed as dist
from fgc_mm.errors import FGCError
from mmpretrain.datasets import CustomDataset
from mmpretrain.registry import DATASETS

@DATASETS.register_module()
class OneSided(CustomDataset):
    def __getitem__(self, index):
        if dist.get_rank() == 1:
            time.sleep(1)
            raise FGCError('rank 1 has no data: all need some; add some.')
        return super().__getitem__(index)
"""

# Replaces srun: starts the tasks, and records its arguments.
SRUN = """
import json, os, subprocess, sys
arguments = sys.argv[1:]
json.dump(arguments, open({log!r}, 'w'))
start = next(i for i, a in enumerate(arguments) if a.startswith('/'))
tasks = int(dict(a.split('=', 1) for a in arguments[:start]
                 if '=' in a)['--ntasks'])
processes = [
    subprocess.Popen(arguments[start:], env=dict(
        os.environ, SLURM_PROCID=str(i), SLURM_LOCALID=str(i),
        SLURM_NTASKS=str(tasks), SLURM_JOB_ID='4711', SLURM_STEP_ID='0',
        SLURM_NODELIST='localhost'))
    for i in range(tasks)
]
sys.exit(max(process.wait() for process in processes))
"""
SCONTROL = """#!/bin/sh
[ "$*" = 'show hostnames localhost' ] && echo localhost
"""


def script(name, *arguments):
    return ['bash', TOOLS / f'{name}.sh', *arguments]


@pytest.fixture
def slurm(tmp_path):
    """A PATH with a stand-in for Slurm, and a reader of srun's arguments."""
    folder = tmp_path / 'bin'
    folder.mkdir()
    log = tmp_path / 'srun.json'
    script = tmp_path / 'srun.py'
    script.write_text(SRUN.format(log=str(log)))
    # no shebang of Python's own: its path may have a space
    srun = f'#!/bin/sh\nexec "{sys.executable}" "{script}" "$@"\n'
    for name, text in (('srun', srun), ('scontrol', SCONTROL)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    env = dict(NO_GPU, PATH=f'{folder}:{os.environ["PATH"]}', GRES='')

    return env, lambda: json.loads(log.read_text())


@pytest.mark.parametrize(
    'name, enough',
    [
        ('dist_train', ['config.py', '2']),
        ('dist_test', ['config.py', 'a.pth', '2']),
        ('slurm_train', ['part', 'job', 'config.py', 'work']),
        ('slurm_test', ['part', 'job', 'config.py', 'a.pth']),
    ],
)
def test_usage(project, name, enough):
    assert (TOOLS / f'{name}.sh').stat().st_mode & stat.S_IXUSR
    for arguments in ([], enough[:-1]):
        done = run(script(name, *arguments), project)
        assert done.returncode == 2
        assert done.stdout.startswith(f'usage: {TOOLS / name}.sh ')
    if name.startswith('dist'):
        for gpus in ('0', '-1', 'two', ''):
            done = run(script(name, *enough[:-1], gpus), project)
            assert done.returncode == 2 and 'usage' in done.stdout


def test_two_processes_train_and_test(project, tmp_path):
    work_dir = tmp_path / 'with a space'
    done = run(
        script('dist_train', 'tiny net.py', 2, '--work-dir', work_dir)
        + [PAIR, 'param_scheduler.eta_max=0.2'],
        project,
        **NO_GPU,
    )
    assert done.returncode == 0, done.stdout
    assert 'Distributed training: True' in done.stdout
    assert 'GPU number: 2' in done.stdout
    # 8 images, 2 processes, batches of 2; each line is printed once
    assert len(re.findall(r'Epoch\(train\) +\[2\]\[2/2\]', done.stdout)) == 1
    assert 'OMP_NUM_THREADS' not in done.stdout
    checkpoint = work_dir / 'epoch_2.pth'
    assert checkpoint.is_file()

    out = tmp_path / 'results.pkl'
    done = run(
        script('dist_test', 'tiny net.py', checkpoint, 2)
        + ['--work-dir', work_dir, '--out', out],
        project,
        **NO_GPU,
    )
    assert done.returncode == 0, done.stdout
    assert len(re.findall('accuracy/top1: ', done.stdout)) == 1
    results = pickle.loads(out.read_bytes())
    assert len(results) == 8
    assert sorted(r['sample_idx'] for r in results) == list(range(8))


def test_an_error_of_all_is_printed_once(project, tmp_path):
    done = run(
        script('dist_train', 'tiny net.py', 2, '--work-dir', tmp_path / 'w')
        + [PAIR, 'train_dataloader.dataset.data_root=/no/such/folder'],
        project,
        **NO_GPU,
    )
    (line,) = error_lines(done.stdout)
    assert line.startswith('error: /no/such/folder')
    assert done.returncode == 2
    assert 'ChildFailedError' not in done.stdout


def config_that_imports(code, project, folder, more=''):
    """The tiny network's config; ``code`` is a module in the folder."""
    (folder / 'imported.py').write_text(code)
    config = folder / 'config.py'
    config.write_text(
        f'_base_ = {str(project / "tiny net.py")!r}\n'
        "custom_imports = dict(imports=['imported'])\n" + more
    )
    return config


def test_an_error_of_one_is_printed_once(project, tmp_path):
    more = "train_dataloader = dict(dataset=dict(type='OneSided'))\n"
    config = config_that_imports(ONE_SIDED, project, tmp_path, more)
    done = run(
        script('dist_train', config, 2, '--work-dir', tmp_path / 'w'),
        project,
        PYTHONPATH=str(tmp_path),
        **NO_GPU,
    )
    expected = 'error: rank 1 has no data: all need some; add some.'
    assert error_lines(done.stdout) == [expected]
    assert done.returncode == 2


def test_a_bad_checkpoint_is_one_line(project, tmp_path):
    (tmp_path / 'empty.pth').touch()
    done = run(
        script('dist_test', 'tiny net.py', tmp_path / 'empty.pth', 2),
        project,
        **NO_GPU,
    )
    (line,) = error_lines(done.stdout)
    assert 'is empty (0 bytes)' in line and done.returncode == 2


def test_several_machines_need_an_address(project, tmp_path):
    """NNODES and its kin reach torchrun."""
    fake = tmp_path / 'python'
    fake.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    fake.chmod(0o755)
    command = script('dist_train', 'a config.py', 4, '--amp')
    one = run(command, project, PYTHON=str(fake)).stdout.splitlines()
    assert one[1:] == [
        '--standalone', '--nproc_per_node=4', f'{TOOLS}/train.py',
        'a config.py', '--launcher', 'pytorch', '--amp',
    ]  # fmt: skip
    env = dict(NNODES='2', NODE_RANK='1', MASTER_ADDR='n0', PORT='1234')
    two = run(command, project, PYTHON=str(fake), **env).stdout.splitlines()
    assert two[1:5] == [
        '--nnodes=2', '--node_rank=1', '--master_addr=n0',
        '--master_port=1234',
    ]  # fmt: skip


def test_slurm_trains(project, tmp_path, slurm):
    env, arguments = slurm
    work_dir = tmp_path / 'with a space'
    done = run(
        script('slurm_train', 'cpu', 'a job', 'tiny net.py', work_dir)
        + ['--no-validate', PAIR, 'train_cfg.max_epochs=1'],
        project,
        GPUS='2',
        SRUN_ARGS='--time=5  --quiet',
        **env,
    )
    assert done.returncode == 0, done.stdout
    assert 'Distributed launcher: slurm' in done.stdout
    assert len(re.findall(r'Epoch\(train\) +\[1\]\[2/2\]', done.stdout)) == 1
    assert (work_dir / 'epoch_1.pth').is_file()
    assert arguments()[:9] == [
        '-p', 'cpu', '--job-name=a job', '--ntasks=2', '--ntasks-per-node=2',
        '--cpus-per-task=5', '--kill-on-bad-exit=1', '--time=5', '--quiet',
    ]  # fmt: skip


def test_slurm_arguments(project, slurm):
    env, arguments = slurm
    del env['GRES']
    env.update(GPUS='16', CPUS_PER_TASK='3', PYTHON='/bin/true')
    run(
        script('slurm_test', 'p', 'j', 'c.py', 'a b.pth', '--amp'),
        project,
        **env,
    )
    assert arguments() == [
        '-p', 'p', '--job-name=j', '--gres=gpu:8', '--ntasks=16',
        '--ntasks-per-node=8', '--cpus-per-task=3', '--kill-on-bad-exit=1',
        '/bin/true', '-u', f'{TOOLS}/test.py', 'c.py', 'a b.pth',
        '--launcher=slurm', '--amp',
    ]  # fmt: skip
    env.update(GRES='gpu:a100:2', GPUS_PER_NODE='2')
    run(script('slurm_test', 'p', 'j', 'c.py', 'a b.pth'), project, **env)
    assert '--gres=gpu:a100:2' in arguments()
    assert '--ntasks-per-node=2' in arguments()


@pytest.fixture
def slurm_env(monkeypatch):
    for name in ('MASTER_PORT', 'SLURM_STEP_NODELIST', 'SLURM_STEP_ID'):
        monkeypatch.delenv(name, raising=False)
    env = dict(PROCID='3', NTASKS='4', LOCALID='1', NODELIST='n[1-2]')
    for name, value in env.items():
        monkeypatch.setenv(f'SLURM_{name}', value)
    monkeypatch.setenv('MASTER_ADDR', 'n1')
    return monkeypatch


@pytest.mark.usefixtures('slurm_env')
def test_slurm_environment():
    found = launch._environment('slurm')
    assert (found['RANK'], found['WORLD_SIZE']) == ('3', '4')
    assert (found['LOCAL_RANK'], found['MASTER_ADDR']) == ('1', 'n1')


def test_slurm_jobs_have_ports_of_their_own(slurm_env):
    ports = set()
    for job in range(5000000, 5000100):
        for step in range(3):
            slurm_env.setenv('SLURM_JOB_ID', str(job))
            slurm_env.setenv('SLURM_STEP_ID', str(step))
            ports.add(int(launch._environment('slurm')['MASTER_PORT']))
    assert len(ports) == 300
    assert min(ports) >= 1024 and max(ports) < 32768
    slurm_env.setenv('MASTER_PORT', '29500')
    assert launch._environment('slurm')['MASTER_PORT'] == '29500'


@pytest.mark.parametrize(
    'name, address', [('localhost', 'localhost'), ('no.such.name', '10.1.2.3')]
)
def test_slurm_node_without_a_hostname(slurm_env, name, address):
    answers = {
        ('hostnames', 'n[1-2]'): f'{name}\nn2\n',
        ('node', name): f'NodeName={name}\n   NodeAddr=10.1.2.3 Version=1\n',
    }
    slurm_env.delenv('MASTER_ADDR')
    slurm_env.setattr(launch, '_scontrol', lambda *key: answers[key])
    assert launch._environment('slurm')['MASTER_ADDR'] == address


def test_slurm_without_scontrol(slurm_env):
    slurm_env.delenv('MASTER_ADDR')
    slurm_env.setenv('PATH', '')
    with pytest.raises(FGCError, match='set MASTER_ADDR'):
        launch._environment('slurm')


def test_mpi_environment(monkeypatch):
    env = dict(RANK='1', SIZE='2', LOCAL_RANK='0')
    for name, value in env.items():
        monkeypatch.setenv(f'OMPI_COMM_WORLD_{name}', value)
    monkeypatch.delenv('MASTER_ADDR', raising=False)
    with pytest.raises(FGCError, match='no MASTER_ADDR'):
        launch.join_processes(Config(), 'mpi')
    monkeypatch.setenv('MASTER_ADDR', 'n1')
    assert launch._environment('mpi')['WORLD_SIZE'] == '2'


def test_more_processes_than_gpus(monkeypatch):
    names = dict(RANK='2', WORLD_SIZE='3', LOCAL_RANK='2')
    names.update(MASTER_ADDR='n1', MASTER_PORT='1')
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    with pytest.raises(FGCError, match='has no GPU'):
        launch.join_processes(Config(), 'pytorch')


def test_wrapper_without_devices(monkeypatch):
    monkeypatch.setattr(launch.dist, 'init_process_group', lambda *_, **__: 0)
    cfg = Config(dict(find_unused_parameters=True))
    launch._join_gloo(cfg)
    assert cfg.model_wrapper_cfg == dict(
        type='MMDistributedDataParallel',
        broadcast_buffers=False,
        find_unused_parameters=True,
        device_ids=None,
    )
    cfg = Config(dict(model_wrapper_cfg=dict(type='Other', static_graph=True)))
    launch._join_gloo(cfg)
    assert cfg.model_wrapper_cfg.type == 'Other'
    assert cfg.model_wrapper_cfg.static_graph is True
    assert cfg.model_wrapper_cfg.device_ids is None


@pytest.mark.parametrize(
    'env, rank',
    [
        (dict(), 0),
        (dict(RANK='3'), 0),  # a shell variable, no torchrun
        (dict(RANK='3', TORCHELASTIC_RUN_ID='x'), 3),
        (dict(SLURM_PROCID='2'), 2),
        (dict(OMPI_COMM_WORLD_RANK='1'), 1),
    ],
)
def test_started_rank(monkeypatch, env, rank):
    names = ('RANK', 'TORCHELASTIC_RUN_ID', 'SLURM_PROCID')
    for name in (*names, 'OMPI_COMM_WORLD_RANK'):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert ranks.started_rank() == rank


@pytest.fixture
def slept(monkeypatch):
    """Seconds slept in place of sleeping."""
    seconds = []
    monkeypatch.setattr(ranks, 'sleep', seconds.append)
    return seconds


@pytest.mark.parametrize('rank', [0, 1])
def test_without_our_torchrun_rank_0_reports(monkeypatch, slept, rank):
    for name in ('RANK', 'TORCHELASTIC_RUN_ID', STOP_FILE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('SLURM_PROCID', str(rank))
    assert ranks.reports_errors() == (rank == 0)
    assert slept == [ranks.TIME_TO_REPORT] * rank


def test_the_first_of_our_torchrun_reports(monkeypatch, slept, tmp_path):
    """Once in every attempt."""
    monkeypatch.setenv(STOP_FILE, str(tmp_path / 'stopped'))
    monkeypatch.setenv('TORCHELASTIC_RUN_ID', 'x')
    monkeypatch.setenv('RANK', '1')
    for attempt in ('0', '1'):
        monkeypatch.setenv('TORCHELASTIC_RESTART_COUNT', attempt)
        assert ranks.reports_errors() and not slept
        assert not ranks.reports_errors() and slept.pop()
    assert not (tmp_path / 'stopped').exists()
    monkeypatch.setenv(STOP_FILE, str(tmp_path / 'gone' / 'stopped'))
    assert not ranks.reports_errors()


# Rank 0 is still reading when rank 1 finds the error.
SLOW_RANK_0 = """
import os, time
time.sleep(3 * (os.environ['RANK'] == '0'))
"""


def test_an_error_is_printed_where_rank_0_is_slow(project, tmp_path):
    config = config_that_imports(SLOW_RANK_0, project, tmp_path)
    (tmp_path / 'empty.pth').touch()
    done = run(
        script('dist_test', config, tmp_path / 'empty.pth', 2),
        project,
        PYTHONPATH=str(tmp_path),
        **NO_GPU,
    )
    (line,) = error_lines(done.stdout)
    assert 'is empty (0 bytes)' in line and done.returncode == 2


def test_ctrl_c_of_all_is_one_line(project, tmp_path):
    command = script('dist_train', 'tiny net.py', 2, '--work-dir', tmp_path)
    command += [PAIR, 'train_cfg.max_epochs=9999']
    command += ['param_scheduler.total_steps=99999']
    process = subprocess.Popen(
        list(map(str, command)),
        cwd=project,
        env={**os.environ, **NO_GPU, 'PYTHON': sys.executable},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # a shell's background job, as this test may be, ignores Ctrl-C
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        for line in process.stdout:
            if re.search(r'Epoch\(train\) +\[2\]', line):
                break
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        text, _ = process.communicate(timeout=300)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130
    assert 'Traceback' not in text
    assert text.count('interrupted\n') == 1
