"""Several ranks on a machine whose GPUs Slurm gives out."""

import os

import pytest
import torch
from mmengine.config import Config

from fgc_mm.cli import launch
from fgc_mm.errors import FGCError

BOUND = [
    dict(SLURM_GPUS_PER_TASK='1'),
    dict(SLURM_TRES_PER_TASK='cpu=4,gres/gpu=1'),
    dict(SLURM_GPU_BIND='single:1'),
]
UNBOUND = [
    dict(),
    dict(SLURM_GPU_BIND='none'),
    dict(SLURM_TRES_PER_TASK='cpu'),
]


@pytest.fixture
def third_rank(monkeypatch):
    """The third of four processes on a machine with one visible GPU."""
    env = dict(PROCID='2', NTASKS='4', LOCALID='2', JOB_ID='7')
    for name, value in env.items():
        monkeypatch.setenv(f'SLURM_{name}', value)
    for name in ('GPUS_PER_TASK', 'TRES_PER_TASK', 'GPU_BIND'):
        monkeypatch.delenv(f'SLURM_{name}', raising=False)
    names = 'RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_PORT'
    for name in names:  # to be put back after the test
        monkeypatch.setenv(name, '')
    monkeypatch.setenv('MASTER_ADDR', 'n1')
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 1)
    monkeypatch.setattr(launch, 'check_devices', lambda seconds: None)
    # set by the tested function, restored afterwards
    monkeypatch.setenv('TORCH_NCCL_DESYNC_DEBUG', '1')


@pytest.mark.usefixtures('third_rank')
@pytest.mark.parametrize('env', BOUND, ids=str)
def test_a_gpu_of_its_own_is_number_0(monkeypatch, env):
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    launch.join_processes(Config(), 'slurm')
    # what mmengine and the model's wrapper read
    assert os.environ['SLURM_LOCALID'] == os.environ['LOCAL_RANK'] == '0'
    assert os.environ['RANK'] == '2' and os.environ['WORLD_SIZE'] == '4'


@pytest.mark.usefixtures('third_rank')
@pytest.mark.parametrize('env', UNBOUND, ids=str)
def test_one_gpu_for_all_is_refused(monkeypatch, env):
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(FGCError, match=r'has no GPU .*--gpus-per-task=1'):
        launch.join_processes(Config(), 'slurm')


@pytest.mark.usefixtures('third_rank')
def test_several_gpus_are_numbered_as_ever(monkeypatch):
    monkeypatch.setenv('SLURM_GPUS_PER_TASK', '1')
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 4)
    launch.join_processes(Config(), 'slurm')
    assert os.environ['LOCAL_RANK'] == '2'


@pytest.mark.usefixtures('third_rank')
@pytest.mark.parametrize(
    ('content', 'seconds'),
    [
        ({}, 1800),
        (dict(env_cfg=dict(dist_cfg=dict(backend='nccl'))), 1800),
        (dict(env_cfg=dict(dist_cfg=dict(timeout=60))), 60),
    ],
)
def test_nccl_waits_as_long_as_gloo(monkeypatch, content, seconds):
    """Torch's own default for NCCL is shorter than that of gloo."""
    waited = []
    monkeypatch.setenv('SLURM_GPUS_PER_TASK', '1')
    monkeypatch.setattr(launch, 'check_devices', waited.append)
    cfg = Config(content)
    launch.join_processes(cfg, 'slurm')
    assert waited == [seconds]
    # what mmengine passes to init_process_group
    assert cfg.env_cfg.dist_cfg.timeout == seconds
