"""A tiny project: two classes of images, a config, and one trained run."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope
from mmengine.visualization import Visualizer

from fgc_mm.cli.command_table import COMMANDS
from fgc_mm.cli.dispatch import parse
from fgc_mm.cli.run_tool import run_tool

TOOLS = Path(__file__).resolve().parents[2] / 'tools'

CONFIG = """
default_scope = 'mmpretrain'
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='ResNet', depth=18, base_channels=4, stem_channels=4,
        num_stages=1, strides=(1,), dilations=(1,), out_indices=(0,)),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=2, in_channels=4, topk=(1,)),
    data_preprocessor=dict(mean=[127.] * 3, std=[60.] * 3))
dataset = dict(
    type='CustomDataset', data_root='some images',
    pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')])
train_dataloader = dict(
    batch_size=2, num_workers=0, dataset=dataset,
    sampler=dict(type='DefaultSampler', shuffle=True))
val_dataloader = dict(
    batch_size=3, num_workers=1, dataset=dataset,
    sampler=dict(type='DefaultSampler', shuffle=False))
test_dataloader = val_dataloader
val_evaluator = dict(type='Accuracy', topk=(1,))
test_evaluator = val_evaluator
train_cfg = dict(by_epoch=True, max_epochs=2)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.01))
param_scheduler = dict(
    type='OneCycleLR', eta_max=.1, total_steps=99, by_epoch=False)
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=1),
    checkpoint=dict(type='CheckpointHook', interval=1))
"""


def run(command, folder, **env):
    """A command as a user types it; every output in one text."""
    return subprocess.run(
        list(map(str, command)),
        cwd=folder,
        env={**os.environ, 'PYTHON': sys.executable, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )


def error_lines(text):
    """The lines of an error; a traceback must not be among them."""
    assert 'Traceback' not in text, text
    return re.findall('^error: .*', text, re.MULTILINE)


@pytest.fixture(scope='session')
def project(tmp_path_factory):
    """A folder (with a space in its name) to run the tools in."""
    folder = tmp_path_factory.mktemp('a project')
    random = np.random.default_rng(0)
    for label in range(2):
        images = folder / 'some images' / str(label)
        images.mkdir(parents=True)
        for index in range(4):
            pixels = random.integers(0, 99, (16, 16, 3)) + 150 * label
            cv2.imwrite(str(images / f'{index}.png'), pixels.astype('uint8'))
    (folder / 'tiny net.py').write_text(CONFIG)
    return folder


@pytest.fixture(scope='session')
def trained(project):
    """What `python tools/train.py CONFIG` did: output and work dir."""
    done = run([sys.executable, TOOLS / 'train.py', 'tiny net.py'], project)
    work_dir = project / 'work_dirs' / 'tiny net'
    return SimpleNamespace(
        code=done.returncode,
        text=done.stdout,
        work_dir=work_dir,
        checkpoint=work_dir / 'epoch_2.pth',
    )


def load_tool(name):
    """The module of a tool's main function.

    Args:
        name: Of the file in tools/, without .py.
    """
    return importlib.import_module(
        f'fgc_mm.cli.commands.{name.rpartition("/")[2]}'
    )


def main_of(name):
    """Parses ``sys.argv`` and runs the command, as a function.

    Args:
        name: As for :func:`load_tool`.
    """
    module = load_tool(name)
    file = module.__name__.rpartition('.')[2]
    (command,) = (n for n, c in COMMANDS.items() if c.module == file)
    return lambda: module.main(parse(command))


@pytest.fixture
def tool(project, monkeypatch, capfd):
    """Runs a tool in this process (seconds less): exit code and stderr."""

    def call(name, *arguments):
        monkeypatch.setattr(sys, 'path', list(sys.path))
        # A Runner names its logger by the second, and a second one of the
        # same name would write to the output of the test before.
        for manager in (DefaultScope, MessageHub, MMLogger, Visualizer):
            manager._instance_dict.clear()
        monkeypatch.chdir(project)
        monkeypatch.setenv('LOCAL_RANK', '0')
        monkeypatch.setattr(sys, 'argv', [name, *map(str, arguments)])
        code = run_tool(main_of(name))
        return code, capfd.readouterr().err

    return call
