"""Real configs, plans and tools in tiny, in the process of the test."""

import os
import re
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope
from mmengine.visualization import Visualizer

from fgc_mm.cli.command_table import COMMANDS, find_command
from fgc_mm.cli.run_tool import run_tool as run_command
from fgc_mm.comparison.executor import Event

from .conftest import load_tool, main_of
from .test_fgc_pr import published

ROOT = Path(__file__).resolve().parents[2]
# so many images that each class has more of them than neighbours
EPOCHS, IMAGES, NEIGHBORS = 2, 100, 4
EVERY_ROW = bool(os.environ.get('FGC_EVERY_ROW'))
WIDTHS = {
    'CifarResNet': (dict(base_channels=4, depth=20), 16),
    'ResNet': (dict(base_channels=8, stem_channels=8), 64),
    'MobileNetV1': (dict(width=0.125), 128),
    'VGG': ({}, 512),
}


def tiny_config(path):
    """A real config in tiny; its path in work_dirs/ stays."""
    cfg = Config.fromfile(path)
    digits = Config.fromfile(ROOT / 'configs' / 'dense_resnet20_digits.py')
    network = cfg.model.backbone
    network = network.get('backbone', network)
    options, channels = WIDTHS[network.type.rpartition('.')[2]]
    network.update(options)
    cfg.model.head.update(num_classes=10, in_channels=channels)
    cfg.data_preprocessor = digits.data_preprocessor
    size = 8 if 'Cifar' in network.type else 32
    resize = dict(type='Resize', scale=(size, size))
    for name in ('train', 'val', 'test'):
        loader = digits[f'{name}_dataloader']
        loader.batch_size = 50
        loader.dataset.indices = 10 if name == 'val' else IMAGES
        loader.dataset.pipeline.insert(0, resize)
        cfg[f'{name}_dataloader'] = loader
    for loss in cfg.model.get('gate_losses', ()):
        if 'num_neighbors' in loss:
            loss.num_neighbors = NEIGHBORS
    cfg.default_hooks.logger.interval = 1
    cfg.default_hooks.pop('config_check')  # longer than the training
    if cfg.load_from:
        cfg.load_from = tiny_epochs(cfg.load_from)
    return cfg


@cache
def epochs_of(name):
    return Config.fromfile(
        ROOT / 'configs' / f'{name}.py'
    ).train_cfg.max_epochs


def tiny_epochs(text):
    """epoch_N.pth: the last one stays the last, others become the first."""

    def number(match):
        last = int(match[3]) == epochs_of(match[2].split('/')[-1])
        return f'{match[1]}epoch_{EPOCHS if last else 1}.pth'

    pattern = r'(work_dirs/(?:\w+/runs/)?(\w+)/(?:seed\d+/)?)epoch_(\d+)\.pth'
    return re.sub(pattern, number, text)


def tiny_plan(text, every):
    """One seed, few neighbours, and one row (none of a dense network)."""
    content = yaml.safe_load(text)
    rows = content['methods']
    for row in rows:
        options = row.get('options', {}) if isinstance(row, dict) else {}
        for key in options:
            if key.endswith('num_neighbors'):
                options[key] = NEIGHBORS
    if not every:
        rows = [[row for row in rows if 'dense' not in str(row)][-1]]
        content.pop('questions', None)
        _keep_on_axis(content, rows)
    return yaml.safe_dump({**content, 'seeds': [0], 'methods': rows})


def _keep_on_axis(content, rows):
    """Takes the points of other rows from a plan's figure."""
    names = {row.get('name') for row in rows if isinstance(row, dict)}
    series = content.get('axis', {}).get('series', {})
    for key, points in list(series.items()):
        left = [point for point in points if point in names]
        if not left:
            series.pop(key)
        elif isinstance(points, dict):
            series[key] = {point: points[point] for point in left}
        else:
            series[key] = left


def narrow_published():
    """As published, with 4 channels for 16."""
    state = {
        key: value[tuple(slice(0, _narrow(n)) for n in value.shape)].clone()
        if value.dim()
        else value
        for key, value in published()['state_dict'].items()
        if '_mb.' not in key
    }
    for key, value in state.items():  # a gate's hidden layer keeps its width
        if '.gate.mlp.' in key:
            state[key] = _gate(key, value)
    return dict(state_dict=state, epoch=100)


def _narrow(size):
    return size // 4 if size in (16, 32, 64) else size


def _gate(key, value):
    if '.fc1.' in key:
        return torch.randn(16, *value.shape[1:])
    if '.fc2.weight' in key:
        return torch.randn(value.shape[0], 16, 1, 1)
    if '.bn.' in key and value.dim():
        return torch.ones(16)
    return value


class InProcess:
    """The executor of a comparison, one step after the other."""

    def __init__(self, *_):
        self.ended = []

    free = True

    @property
    def busy(self):
        return bool(self.ended)

    def start(self, run, step, command):
        run.log.parent.mkdir(parents=True, exist_ok=True)
        run.log.touch()
        run.log_command(command)
        tool, arguments = find_command(command[3:])
        code = run_tool(COMMANDS[tool].module, arguments)
        self.ended.append(Event(run.name, code=code))
        return step

    def poll(self):
        ended, self.ended = self.ended, []
        return ended

    def stop(self):
        pass


def run_tool(name, arguments):
    """Exit code of a tool in this process."""
    module = load_tool(name)
    for manager in (DefaultScope, MessageHub, MMLogger, Visualizer):
        manager._instance_dict.clear()
    path = list(sys.path)
    with pytest.MonkeyPatch.context() as patch:
        if hasattr(module, 'LocalExecutor'):
            patch.setattr(module, 'LocalExecutor', InProcess)
        patch.setattr(sys, 'argv', [name, *map(str, arguments)])
        try:
            return run_command(main_of(name))
        except SystemExit as error:
            return error.code
        finally:
            sys.path[:] = path
