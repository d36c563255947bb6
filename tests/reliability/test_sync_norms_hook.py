"""Running statistics of norms are the same on all ranks."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import EMAHook
from torch import nn

from fgc_mm.reliability import SyncNormsHook, sync_norms_hook


@pytest.mark.parametrize('how', ['exact_resume', 'stopped'])
def test_two_ranks_have_the_network_that_is_saved(two_ranks, how):
    """After an epoch, and at a stop within one."""
    for result in two_ranks:
        one, other = result[how]['means']
        assert one.any()
        assert torch.equal(one, other)
        assert torch.equal(one, result[how]['saved'])


def test_before_a_validation(monkeypatch):
    called, hook = [], SyncNormsHook()
    monkeypatch.setattr(hook, 'average_norms', called.append)
    hook.before_val_epoch('runner')
    assert called == ['runner']


def network():
    made = nn.Sequential(
        nn.BatchNorm1d(2),
        nn.BatchNorm2d(2, track_running_stats=False),
        nn.LayerNorm(2),
    )
    made.register_buffer('threshold', torch.ones(()))
    return made


@pytest.mark.parametrize('ranks', [1, 2])
def test_only_norms_are_averaged_those_of_an_average_too(monkeypatch, ranks):
    seen = []
    monkeypatch.setattr(
        sync_norms_hook,
        'all_reduce_params',
        lambda params, op: seen.extend([*params, op]),
    )
    monkeypatch.setattr(sync_norms_hook, 'get_world_size', lambda: ranks)
    average = EMAHook()
    average.ema_model = nn.ModuleDict(dict(module=network()))
    runner = SimpleNamespace(model=network(), hooks=[average])
    SyncNormsHook().average_norms(runner)
    norms = runner.model[0], average.ema_model['module'][0]
    wanted = [
        x for norm in norms for x in (norm.running_mean, norm.running_var)
    ]
    if ranks == 1:
        wanted = []
    assert [id(x) for x in seen[:-1]] == [id(x) for x in wanted]
    assert seen[-1:] == (['mean'] if ranks > 1 else [])
