"""Every command of docs/reproduce.md runs to its end, on a few digits.

The commands run as they stand on the page, in order and in this process, in
a folder whose configs/ has the same names: each is the real config with
digits for images, a small network and two epochs. Of a plan all rows are
planned and their losses built, but one trained, and of several ways to prune
statically one; with FGC_EVERY_ROW=1 all of them.
"""

import os
import re
import shlex
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
from mmpretrain.registry import MODELS

from fgc_mm.comparison.kept import update_blocks
from fgc_mm.comparison.plan import Settings, plan
from fgc_mm.comparison.study import read_study
from fgc_mm.comparison.table import read_published
from fgc_mm.engine import command_line

from .conftest import load_tool
from .test_fgc_pr import published

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / 'docs' / 'reproduce.md').read_text()
BLOCKS = re.findall(r'```bash\n(.*?)```', PAGE, re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.splitlines()]
PLANS = [x for x in COMMANDS if '--plan' in x]
EPOCHS, IMAGES, NEIGHBORS = 2, 24, 5
EVERY_ROW = bool(os.environ.get('FGC_EVERY_ROW'))
# tools whose command takes --epochs
TRAINING = 'train', 'compare'
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
        loader.batch_size = 8
        loader.dataset.indices = IMAGES if name == 'train' else 10
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
    rows, seeds = content['methods'], [0]
    for row in rows:
        options = row.get('options', {}) if isinstance(row, dict) else {}
        for key in options:
            if key.endswith('num_neighbors'):
                options[key] = NEIGHBORS
    if not every:
        rows = [[row for row in rows if 'dense' not in str(row)][-1]]
        content.pop('questions', None)
    return yaml.safe_dump({**content, 'seeds': seeds, 'methods': rows})


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """configs/ in tiny, and the published code's checkpoint."""
    folder = tmp_path_factory.mktemp('page')
    (folder / 'configs' / 'studies').mkdir(parents=True)
    names = set(re.findall(r'configs/(\w+)\.py', PAGE))
    for command in PLANS:
        text = (ROOT / shlex.split(command)[3]).read_text()
        names |= set(re.findall(r'\.\./(\w+)\.py', text))
    for name in names:
        cfg = tiny_config(ROOT / 'configs' / f'{name}.py')
        cfg.dump(folder / 'configs' / f'{name}.py')
    torch.save(narrow_published(), folder / 'resnet20-99-BAS.pth')
    return folder


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
    """What compare.py uses of its workers, one step after the other."""

    def __init__(self, jobs, threads, devices=()):
        self.codes = []

    free = True

    @property
    def busy(self):
        return bool(self.codes)

    def start(self, name, command, log):
        log.parent.mkdir(parents=True, exist_ok=True)
        log.touch()
        tool = Path(command[2]).relative_to(ROOT / 'tools').with_suffix('')
        self.codes.append((name, run_tool(str(tool), command[3:])))

    def ended(self):
        ended, self.codes = self.codes, []
        return ended

    def stop(self):
        pass


def run_tool(name, arguments):
    """Exit code of a tool in this process."""
    module = load_tool(name)
    for manager in (DefaultScope, MessageHub, MMLogger, Visualizer):
        manager._instance_dict.clear()
    if hasattr(module, 'Workers'):
        module.Workers = InProcess
    argv, path = sys.argv, list(sys.path)
    sys.argv = [name, *map(str, arguments)]
    try:
        return module.command_line.run_tool(module.main)
    except SystemExit as error:
        return error.code
    finally:
        sys.argv, sys.path[:] = argv, path


def prepared(command, folder):
    """Tool and arguments, in tiny."""
    python, tool, *arguments = shlex.split(tiny_epochs(command))
    assert python == 'python' and (ROOT / tool).is_file()
    name = tool.removeprefix('tools/').removesuffix('.py')
    if name in TRAINING:
        arguments += ['--epochs', str(EPOCHS)]
    if name == 'compare':
        arguments += ['--seeds', '0']
        static = [argument for argument in arguments if ':' in argument]
        for argument in () if EVERY_ROW else static[1:]:
            arguments.remove(argument)
    if '--plan' in arguments:
        place = arguments.index('--plan') + 1
        text = (ROOT / arguments[place]).read_text()
        (folder / arguments[place]).write_text(tiny_plan(text, EVERY_ROW))
    return name, arguments


@pytest.mark.parametrize('command', PLANS)
def test_every_row_of_a_plan_is_planned_and_built(
    command, folder, monkeypatch, tmp_path
):
    monkeypatch.chdir(folder)
    file = folder / shlex.split(command)[3]
    whole = file.with_name(f'whole_{file.name}')
    text = (ROOT / shlex.split(command)[3]).read_text()
    whole.write_text(tiny_plan(text, every=True))
    study = read_study(whole)
    runs = plan(study.entries, Settings([0], tmp_path, EPOCHS, study.options))
    assert {run.method.name for run in runs} >= {
        entry.row for entry in study.entries
    }
    for run in runs:
        cfg = command_line.load_config(str(run.method.config))
        options = command_line.read_options(run.method.options)
        command_line.override(cfg, options)
        for loss in cfg.model.get('gate_losses', ()):
            MODELS.build(loss)


def test_every_command_runs_to_its_end(folder, monkeypatch, capfd):
    monkeypatch.chdir(folder)
    monkeypatch.setenv('LOCAL_RANK', '0')
    outcomes = []
    for command in COMMANDS:
        if not (ROOT / shlex.split(command)[1]).is_file():
            outcomes.append((command, 'no such tool'))
            continue
        code = run_tool(*prepared(command, folder))
        said = capfd.readouterr().err.strip().splitlines()[-1:]
        outcomes.append((command, 'ok' if not code else f'{code}: {said}'))
    text = '\n'.join(f'{outcome}: {command}' for command, outcome in outcomes)
    assert {outcome for _, outcome in outcomes} == {'ok'}, text
    assert len(outcomes) > 20
    for command in PLANS:
        work_dir = folder / shlex.split(command)[5]
        assert (work_dir / 'compare.md').is_file()
        assert (work_dir / 'compare.png').is_file()


def test_the_page_has_the_published_numbers_and_no_others():
    rows = read_published(ROOT / 'tools' / 'published.csv')
    known = {f'{r["error"]} @ {r["pruning_ratio"]}' for r in rows}
    shown = set(re.findall(r'\d+\.\d+ @ \d+(?:\.\d+)?', PAGE))
    assert shown <= known
    # all of FGC's are there
    fgc = {
        f'{r["error"]} @ {r["pruning_ratio"]}'
        for r in rows
        if r['method'].startswith('FGC') and r['pruning_ratio']
    }
    assert fgc <= shown
    by_k = {r['method'].partition('K=')[2]: r['error'] for r in rows}
    head, line = (
        [cell.strip() for cell in row.split('|')[2:-1]]
        for row in PAGE.splitlines()
        if row.startswith(('| K |', '| published error |'))
    )
    assert dict(zip(head, line)) == {k: v for k, v in by_k.items() if k}


def test_our_numbers_are_those_that_were_kept():
    assert update_blocks(PAGE, ROOT) == PAGE
