"""A schedule in very few epochs still trains at its learning rate."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import PARAM_SCHEDULERS

from fgc_mm.engine.scaled_schedule import scale_epochs

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
DEIT = CONFIGS / 'fgc_deit-tiny_imagenet.py'
STEPS = 10  # of an epoch


def rates(cfg, lr=1.0):
    """The learning rate of every step, as the Runner's hook moves it."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=lr)
    wrapper = OptimWrapper(optimizer)
    epochs = cfg.train_cfg.max_epochs
    schedulers = [
        PARAM_SCHEDULERS.build(
            dict(dict(end=epochs), **scheduler),
            default_args=dict(optimizer=wrapper, epoch_length=STEPS),
        )
        for scheduler in cfg.param_scheduler
    ]
    optimizer.step()
    found = []
    for step in range(epochs * STEPS):
        found.append(optimizer.param_groups[0]['lr'])
        for scheduler in schedulers:
            if not scheduler.by_epoch or step % STEPS == STEPS - 1:
                scheduler.step()
    return found


@pytest.mark.parametrize('epochs', [1, 2, 3, 26, 40])
def test_a_warm_up_ends_at_the_full_rate(epochs):
    """By epochs, one of a single epoch would stay at a thousandth."""
    cfg = scale_epochs(Config.fromfile(DEIT), epochs)
    found = rates(cfg)
    assert found[0] == pytest.approx(1e-3)
    warm = cfg.param_scheduler[0].end
    last = found[warm * STEPS - 1]
    assert last == pytest.approx(1.0, rel=1e-3)
    assert max(found) <= 1.001
    if epochs > 20:
        assert found[-1] < 0.1


@pytest.mark.parametrize(
    'warm_up',
    [
        dict(type='ConstantLR', factor=0.1, end=5),
        dict(type='mmengine.LinearLR', start_factor=0.1, begin=0, end=3),
    ],
    ids=lambda node: node['type'],
)
def test_other_warm_ups(warm_up):
    cfg = Config(
        dict(
            train_cfg=dict(by_epoch=True, max_epochs=100),
            param_scheduler=[
                warm_up,
                dict(type='MultiStepLR', milestones=[60], begin=5),
            ],
        )
    )
    for epochs in (1, 2, 8):
        found = rates(scale_epochs(cfg, epochs))
        assert found[0] == pytest.approx(0.1)
        assert found[STEPS - 1] == pytest.approx(1.0)


def test_a_schedule_that_is_not_scaled_is_left_alone():
    """A warm-up of one epoch may be intended."""
    cfg = Config(
        dict(
            train_cfg=dict(by_epoch=True, max_epochs=9),
            param_scheduler=[dict(type='ConstantLR', factor=0.5, end=1)],
        )
    )
    assert scale_epochs(cfg, 9).param_scheduler == cfg.param_scheduler
