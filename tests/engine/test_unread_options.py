"""Options of the command line that would have no effect."""

import pytest
from mmengine.config import Config

from fgc_mm.engine.config_options import override, unread_options

CFG = dict(
    train_cfg=dict(max_epochs=9),
    model=dict(type='X'),
    train_pipeline=[dict(type='PackInputs')],
    env_cfg=dict(cudnn_benchmark=False),
)


@pytest.mark.parametrize(
    ('option', 'said'),
    [
        ('trian_cfg.max_epochs', 'did you mean train_cfg?'),
        ('randomnes.seed', 'did you mean randomness?'),
        ('modle.head.topk', 'did you mean model?'),
        ('tta_pipline', 'did you mean tta_pipeline?'),
        ('zzz', 'check its spelling'),
        ('env_cfg.cudnn_bench', 'did you mean cudnn_benchmark?'),
        ('auto_scale_lr.base_batchsize', 'did you mean base_batch_size?'),
        ('train_pipeline.0.type', 'is a variable of the config'),
    ],
)
def test_is_named(option, said):
    (sentence,) = unread_options(CFG, {option: 1})
    assert option in sentence and said in sentence and '\n' not in sentence


@pytest.mark.parametrize(
    'option',
    [
        'train_cfg.max_epochs', 'model.head.topk', 'load_from', 'resume',
        'randomness.seed', 'compile', 'find_unused_parameters', 'sync_bn',
        'env_cfg.dist_cfg.timeout', 'default_hooks.checkpoint.interval',
        'val_evaluator.0.topk', 'work_dir', 'visualizer.vis_backends',
        'custom_hooks', 'auto_scale_lr.enable', 'model_wrapper_cfg.type',
    ],
)  # fmt: skip
def test_is_read(option):
    assert list(unread_options(CFG, {option: 1})) == []


def test_the_tools_warn_and_continue(capfd):
    cfg = Config(dict(CFG))
    override(cfg, {'trian_cfg.max_epochs': 3})
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith('warning: --cfg-options trian_cfg.max_epochs')
    override(cfg, {'train_cfg.max_epochs': 3})
    assert cfg.train_cfg.max_epochs == 3
    assert capfd.readouterr().err == ''
