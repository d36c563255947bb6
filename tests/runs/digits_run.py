"""Runs of a real config, made so small that they take a second."""

import itertools
import os
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
NUMBER = itertools.count()
COUPLING = 'model.gate_losses.2'


def tiny_config(folder, epochs=2, **options):
    """fgc_resnet20_digits with 40 images and few channels."""
    cfg = Config.fromfile(CONFIGS / 'fgc_resnet20_digits.py')
    cfg.merge_from_dict(
        {
            'work_dir': str(folder),
            'experiment_name': f'digits{os.getpid()}x{next(NUMBER)}',
            'randomness.seed': 3,
            'model.backbone.backbone.base_channels': 4,
            'model.head.in_channels': 16,
            f'{COUPLING}.num_neighbors': 5,
            f'{COUPLING}.loss_weight': 0.003,
            f'{COUPLING}.warmup_epochs': 1,
            'custom_hooks.1.agreement_interval': 2,
            'train_dataloader.batch_size': 8,
            'train_dataloader.dataset.indices': 40,
            'train_cfg.max_epochs': epochs,
            'default_hooks.checkpoint.interval': 1,
            'default_hooks.checkpoint.max_keep_ckpts': -1,
            'default_hooks.checkpoint.keep_epochs': [],
            'default_hooks.checkpoint.save_best': None,
            'default_hooks.logger.interval': 1,
            **options,
        }
    )
    if not cfg.get('validate'):
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
        cfg.test_cfg = cfg.test_dataloader = cfg.test_evaluator = None
    return cfg


def start(cfg):
    """The Runner, before it trains."""
    DefaultScope.get_instance(cfg.experiment_name, scope_name='mmpretrain')
    return Runner.from_cfg(cfg)


def coupling(runner):
    """The run's coupling loss."""
    model = getattr(runner.model, 'module', runner.model)
    return model.gate_losses[2]


def bank_rows(loss):
    """Copies of all rows, by site and space."""
    return {
        f'{site}.{space}': getattr(banks, space).rows.clone()
        for site, banks in loss.banks.items()
        for space in ('feature', 'gate')
    }


def weights(runner):
    """Copies of all parameters and buffers."""
    model = getattr(runner.model, 'module', runner.model)
    return {k: v.clone() for k, v in model.state_dict().items()}


def equal(one, other):
    """Whether two dicts of tensors hold the same bits."""
    return one.keys() == other.keys() and all(
        torch.equal(one[key], other[key]) for key in one
    )
