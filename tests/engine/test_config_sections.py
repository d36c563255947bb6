"""Sections of a config that are no mappings or lists."""

import pytest
from mmengine.config import Config

from fgc_mm.engine.config_file import load_config
from fgc_mm.engine.config_options import override
from fgc_mm.errors import FGCError

CONFIG = 'fgc_resnet20_digits.py'


@pytest.mark.parametrize(
    'option',
    [
        'optim_wrapper', 'optim_wrapper.optimizer', 'train_dataloader',
        'train_dataloader.dataset', 'train_dataloader.sampler', 'train_cfg',
        'val_evaluator', 'param_scheduler', 'data_preprocessor', 'randomness',
        'model', 'model.head', 'model.backbone', 'model.backbone.backbone',
        'model.gate_losses.0', 'custom_hooks', 'custom_hooks.0',
        'default_hooks', 'default_hooks.checkpoint',
    ],
)  # fmt: skip
@pytest.mark.parametrize('value', [3, 'x', True])
def test_a_part_replaced_by_a_single_value_is_named(option, value):
    with pytest.raises(FGCError) as caught:
        override(load_config(CONFIG), {option: value})
    text = str(caught.value)
    assert any(f'{option}={x} ' in text for x in (value, repr(value)))
    assert '\n' not in text


@pytest.mark.parametrize('value', ['abc', [0.1]])
def test_a_rate_that_is_no_number_is_named(value):
    cfg = load_config(CONFIG)
    with pytest.raises(FGCError, match=r'lr=.* is not a number'):
        override(cfg, {'optim_wrapper.optimizer.lr': value})


def test_a_file_with_a_wrong_section_is_refused(tmp_path):
    file = tmp_path / 'wrong.py'
    file.write_text('model = 3\n')
    with pytest.raises(FGCError, match=r'^model=3 in the config must be'):
        load_config(str(file))


def test_values_that_fit_are_set():
    """Schedules may become numbers, parts None or other parts."""
    cfg = load_config(CONFIG)
    cfg.model.distillation = dict(teacher=dict(type='ImageClassifier'))
    cfg.model.gate_losses[0].loss_weight = dict(start_value=0, end_value=1)
    override(
        cfg,
        {
            'model.distillation.teacher': 'dense.py',
            'model.gate_losses.0.loss_weight': 0.4,
            'model.head.init_cfg': None,
            'train_dataloader.sampler': dict(type='InfiniteSampler'),
            'custom_hooks': [],
        },
    )
    assert cfg.model.distillation.teacher == 'dense.py'
    assert cfg.model.gate_losses[0].loss_weight == 0.4
    assert cfg.custom_hooks == []
    assert isinstance(cfg, Config)


def test_an_option_below_a_number():
    cfg = Config(dict(param_scheduler=dict(milestones=[10, 20])))
    with pytest.raises(FGCError, match='does not fit the config'):
        override(cfg, {'param_scheduler.milestones.0': 1})
