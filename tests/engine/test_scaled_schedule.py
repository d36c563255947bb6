"""The same recipe in another number of epochs."""

import copy
import itertools
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.optim import ExponentialLR
from mmpretrain.engine.hooks import PreciseBNHook

from fgc_mm.engine.scaled_schedule import EpochMap, scale_epochs
from fgc_mm.errors import FGCError

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'


def config(**fields):
    """500 epochs of something."""
    return Config(
        dict(
            train_cfg=dict(by_epoch=True, max_epochs=500, val_interval=5),
            default_hooks=dict(
                checkpoint=dict(type='CheckpointHook', interval=10)
            ),
            **fields,
        )
    )


def weight(begin, end, **more):
    return dict(start_value=0.0, end_value=1.0, begin=begin, end=end, **more)


def test_the_published_schedule_in_a_fifth_of_its_epochs():
    cfg = Config.fromfile(CONFIGS / 'fgc_resnet20_folder.py')
    before = copy.deepcopy(cfg.to_dict())
    scaled = scale_epochs(cfg, 100)
    assert cfg.to_dict() == before
    # by hand: all over 5
    assert scaled.train_cfg.max_epochs == 100
    assert scaled.param_scheduler.milestones == [60, 75, 90]
    shaping, l0, coupling = scaled.model.gate_losses
    assert (shaping.loss_weight.begin, shaping.loss_weight.end) == (0, 20)
    assert (l0.loss_weight.begin, l0.loss_weight.end) == (20, 60)
    assert (coupling.loss_weight.begin, coupling.loss_weight.end) == (20, 20)
    assert coupling.warmup_epochs == 4
    assert scaled.default_hooks.checkpoint.interval == 2
    # and nothing else
    scaled.param_scheduler.milestones = [300, 375, 450]
    for loss, old in zip(scaled.model.gate_losses, cfg.model.gate_losses):
        loss.loss_weight = old.loss_weight
    coupling.warmup_epochs = 20
    assert scaled.model.to_dict() == cfg.model.to_dict()
    assert scaled.optim_wrapper == cfg.optim_wrapper
    assert scaled.train_dataloader == cfg.train_dataloader


@pytest.mark.parametrize(
    ('name', 'epochs', 'milestones'),
    [
        ('fgc_resnet20_cifar10_stage2', 6, [3, 4, 5]),
        ('fgc_resnet20_cifar10_stage2', 5, [2, 3, 4]),
        ('fgc_resnet20_cifar100_stage2', 9, [3, 5, 7]),
        ('fgc_resnet18_imagenet_stage2', 11, [3, 6, 8]),
    ],
)
def test_variables_of_a_config_move_no_milestone(name, epochs, milestones):
    """What a base defines and the config copies counts other epochs."""
    scaled = scale_epochs(Config.fromfile(CONFIGS / f'{name}.py'), epochs)
    assert scaled.param_scheduler.milestones == milestones


def test_the_same_number_of_epochs_changes_nothing():
    for name in ('fgc_resnet20_cifar100.py', 'dense_resnet20_digits.py'):
        cfg = Config.fromfile(CONFIGS / name)
        scaled = scale_epochs(cfg, cfg.train_cfg.max_epochs).to_dict()
        assert scaled['default_hooks']['checkpoint'].pop('save_last')
        assert scaled == cfg.to_dict()


def naive_order(points, epochs):
    """Whether the order is kept, pair by pair."""
    return all(
        (epochs[a] < epochs[b]) == (a < b)
        for a, b in itertools.permutations(points, 2)
    )


@pytest.mark.parametrize('new', range(1, 40))
def test_order_and_length(new):
    points = {0, 1, 7, 100, 101, 102, 300, 301, 375, 498, 499}
    epoch_map = EpochMap.of(points, 500, new)
    epochs = {p: epoch_map.at(p) for p in [*points, 500]}
    ordered = [epochs[p] for p in sorted(epochs)]
    assert ordered == sorted(ordered)
    assert ordered[0] == 0 and ordered[-1] == new
    if new >= len(points):
        assert naive_order([*points, 500], epochs)
        # at most as far from its share as there are points before it
        for p, epoch in epochs.items():
            assert abs(epoch - p * new / 500) < len(points)
    if new > 1:
        assert all(0 < epochs[p] < new for p in points - {0})


@pytest.mark.parametrize('new', [1, 2, 3, 7, 50, 499, 2000])
def test_what_lasts_keeps_lasting(new):
    cfg = config(
        param_scheduler=[
            dict(type='LinearLR', begin=0, end=3),
            dict(type='CosineAnnealingLR', T_max=497, begin=3, end=500),
            dict(type='LinearLR', begin=0, end=300, by_epoch=False),
        ],
        model=dict(
            gate=[dict(density=weight(2, 4))],
            loss_weight=weight(4, 4),
            other=weight(10, 90, by_epoch=False),
        ),
    )
    scaled = scale_epochs(cfg, new)
    linear, cosine, steps = scaled.param_scheduler
    assert linear.begin < linear.end
    assert cosine.begin < cosine.end == new and cosine.T_max >= 1
    if new > 1:  # else two do not fit
        assert linear.end == cosine.begin
        assert cosine.T_max == cosine.end - cosine.begin
    assert steps == cfg.param_scheduler[2]
    assert scaled.model.other == cfg.model.other
    density, step = scaled.model.gate[0].density, scaled.model.loss_weight
    assert density.begin < density.end
    assert step.begin == step.end
    if new > 4:
        assert density.end == step.begin


def test_the_last_epoch_is_validated_and_saved():
    for new in (1, 3, 100, 1000):
        scaled = scale_epochs(config(), new)
        assert scaled.train_cfg.val_interval == max(round(new / 100), 1)
        hook = scaled.default_hooks.checkpoint
        assert hook.interval == max(round(new / 50), 1) and hook.save_last


def test_other_schedulers():
    cfg = config(
        param_scheduler=dict(
            backbone=[dict(type='StepLR', step_size=100, gamma=0.1)],
            gates=[
                dict(type='ExponentialLR', gamma=0.99),
                dict(type='CosineRestartLR', periods=[100, 400]),
            ],
        )
    )
    found = scale_epochs(cfg, 50).param_scheduler
    assert found.backbone[0].step_size == 10
    assert found.gates[0].gamma ** 50 == pytest.approx(0.99**500)
    assert found.gates[1].periods == [10, 40]


def test_the_preset_warms_up_in_proportion_too():
    loss = dict(type='fgc_mm.FeatureGateCouplingLoss')
    model = dict(gate_losses=[loss, dict(loss, preset='paper')])
    found = scale_epochs(config(model=model), 100).model.gate_losses
    assert [x.warmup_epochs for x in found] == [4, 0]


@pytest.mark.parametrize(
    ('cfg', 'epochs', 'told'),
    [
        (config(), 0, 'the number of epochs is 0'),
        (
            Config(dict(train_cfg=dict(by_epoch=False, max_iters=9))),
            5,
            'has no train_cfg.max_epochs',
        ),
    ],
)
def test_bad_input(cfg, epochs, told):
    with pytest.raises(FGCError, match=told):
        scale_epochs(cfg, epochs)


def test_hooks_that_begin_later_move_along():
    hooks = [
        dict(type='EMAHook', begin_epoch=begin)
        for begin in (250, 0, -1, None, [3])
    ]
    cfg = config(custom_hooks=hooks)
    moved = [h.begin_epoch for h in scale_epochs(cfg, 20).custom_hooks]
    # after 249 of 500 epochs, and after 10 of 20
    assert moved == [11, 0, -1, None, [3]]
    assert cfg.custom_hooks[0].begin_epoch == 250


def test_other_settings_of_hooks_that_count_epochs():
    cfg = config(
        custom_hooks=[
            dict(
                type='SwitchRecipeHook',
                schedule=[dict(action_epoch=n) for n in (1, 251, 401)],
            ),
            dict(type='WarmupParamHook', warmup_epochs=50),
            dict(type=PreciseBNHook, interval=100),
            dict(type='GateStatisticsHook', interval=100),
        ],
        param_scheduler=[
            dict(type='ReduceOnPlateauLR', patience=50, cooldown=0),
            dict(type=ExponentialLR, gamma=0.99),
        ],
    )
    scaled = scale_epochs(cfg, 20)
    switch, warm_up, precise, statistics = scaled.custom_hooks
    assert [x.action_epoch for x in switch.schedule] == [1, 11, 17]
    assert warm_up.warmup_epochs == 2 and precise.interval == 4
    assert statistics.interval == 100  # of iterations
    plateau, exponential = scaled.param_scheduler
    # validations: 250 epochs before, 10 now
    assert (plateau.patience, plateau.cooldown) == (10, 0)
    assert exponential.gamma == pytest.approx(0.99**25)


def test_counts_of_validations():
    cfg = config(param_scheduler=[dict(type='ReduceOnPlateauLR', cooldown=5)])
    cfg.train_cfg.val_interval = 1
    (plateau,) = scale_epochs(cfg, 250).param_scheduler
    assert (plateau.patience, plateau.cooldown) == (5, 3)


def test_recipes_that_fall_on_one_epoch_are_merged():
    schedule = [
        dict(action_epoch=251, loss='a', train_pipeline=[1]),
        dict(action_epoch=401, loss='b', batch_augments=None),
    ]
    cfg = config(
        custom_hooks=[dict(type='SwitchRecipeHook', schedule=schedule)]
    )
    (hook,) = scale_epochs(cfg, 1).custom_hooks
    (recipe,) = hook.schedule
    assert recipe == dict(
        action_epoch=recipe.action_epoch,
        loss='b',
        train_pipeline=[1],
        batch_augments=None,
    )
