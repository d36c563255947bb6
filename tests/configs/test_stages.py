"""Two stages train by the same weights and rates as the single run."""

from functools import cache
from pathlib import Path

import pytest
from mmengine.config import Config

from fgc_mm.functional.schedule import Progress, Schedule

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
SHARED = 'train_dataloader', 'val_dataloader', 'optim_wrapper', 'test_cfg'
# epochs of batch shaping, epochs of the paper after them, steps, gamma
CIFAR10 = 100, 400, [200, 275, 350], 0.1
CIFAR100 = 100, 200, [60, 120, 160], 0.2
PUBLISHED = {
    'resnet20_cifar10': CIFAR10,
    'resnet32_cifar10': CIFAR10,
    'resnet56_cifar10': CIFAR10,
    'resnet20_folder': CIFAR10,
    'resnet20_cifar100': CIFAR100,
    'resnet32_cifar100': CIFAR100,
    'resnet56_cifar100': CIFAR100,
    'resnet18_imagenet': (30, 130, [40, 70, 100], 0.1),
    'resnet20_digits': (20, 80, [40, 55, 70], 0.1),
}
METHODS = 'bas', 'fgc'
RUNS = [(method, network) for network in PUBLISHED for method in METHODS]


@cache
def read(name):
    return Config.fromfile(CONFIGS / f'{name}.py')


def rate(cfg, epoch):
    """Learning rate, by hand."""
    lr = cfg.optim_wrapper.optimizer.lr
    if cfg.param_scheduler is None:
        return lr
    assert cfg.param_scheduler.type == 'MultiStepLR'
    passed = sum(epoch >= m for m in cfg.param_scheduler.milestones)
    return lr * cfg.param_scheduler.gamma**passed


def weights(cfg, epoch):
    """Of every loss that acts in an epoch, and K, or 0 in the warm-up."""
    found = {}
    for loss in cfg.model.gate_losses:
        schedule = Schedule.build(loss.loss_weight)
        weight = schedule.at(Progress(epoch, 0))
        if weight:
            found[loss.type] = pytest.approx(weight)
        if weight and 'warmup_epochs' in loss:
            coupled = epoch - schedule.first_epoch
            warm = coupled < loss.warmup_epochs
            found['neighbors'] = 0 if warm else loss.num_neighbors
    return found


@pytest.mark.parametrize(('method', 'network'), RUNS)
def test_every_epoch_is_the_same_in_both_numberings(method, network):
    whole = read(f'{method}_{network}')
    parts = [read(f'bas_{network}_stage1'), read(f'{method}_{network}_stage2')]
    epochs = [part.train_cfg.max_epochs for part in parts]
    assert whole.train_cfg.max_epochs == sum(epochs)
    numbered = [(part, e) for part, n in zip(parts, epochs) for e in range(n)]
    for epoch, (part, own) in enumerate(numbered):
        assert weights(whole, epoch) == weights(part, own), epoch
        assert rate(whole, epoch) == pytest.approx(rate(part, own)), epoch


@pytest.mark.parametrize(('method', 'network'), RUNS)
def test_the_second_stage_is_the_published_one(method, network):
    _, second, steps, gamma = PUBLISHED[network]
    cfg = read(f'{method}_{network}_stage2')
    assert cfg.train_cfg.max_epochs == second
    assert cfg.param_scheduler.milestones == steps
    assert cfg.param_scheduler.gamma == gamma
    l0, *coupling = cfg.model.gate_losses
    assert (l0.type, l0.loss_weight.end_value) == ('fgc_mm.L0Loss', 0.4)
    # no batch shaping; the ramp from the start to the first drop of the rate
    assert (l0.loss_weight.begin, l0.loss_weight.end) == (0, steps[0])
    assert [loss.loss_weight for loss in coupling] == [0.003] * len(coupling)
    assert len(coupling) == (method == 'fgc')
    hooks = [hook.type for hook in cfg.custom_hooks]
    assert ('fgc_mm.FGCMemoryBankHook' in hooks) == (method == 'fgc')


@pytest.mark.parametrize(('method', 'network'), RUNS)
def test_the_second_stage_starts_where_the_first_one_ends(method, network):
    first, second, whole = (
        read(name)
        for name in (
            f'bas_{network}_stage1',
            f'{method}_{network}_stage2',
            f'{method}_{network}',
        )
    )
    epochs = PUBLISHED[network][0]
    assert first.train_cfg.max_epochs == epochs
    folder = f'work_dirs/bas_{network}_stage1'
    assert second.load_from == f'{folder}/epoch_{epochs}.pth'
    assert whole.default_hooks.checkpoint.keep_epochs == [epochs]
    for part in (first, second):
        assert part.model.backbone == whole.model.backbone
        assert part.model.head == whole.model.head
        assert all(part[name] == whole[name] for name in SHARED)
    if method == 'fgc':
        *_, old = whole.model.gate_losses
        *_, new = second.model.gate_losses
        for name in ('sites', 'num_neighbors', 'warmup_epochs'):
            assert new[name] == old[name]
