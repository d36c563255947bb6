"""One model at many budgets."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS

from fgc_mm.comparison import stored_results

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / 'configs' / 'bas_resnet20_digits.py'
SWEEP = ROOT / 'tools' / 'analysis_tools' / 'sweep_threshold.py'


def run(folder, *command):
    return subprocess.run(
        [sys.executable, '-W', 'ignore', *map(str, command)],
        cwd=folder, text=True, capture_output=True, timeout=300,
    )  # fmt: skip


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('sweep')
    cfg = Config.fromfile(CONFIG)
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    model = MODELS.build(
        dict(cfg.model, data_preprocessor=cfg.data_preprocessor)
    )
    torch.save(dict(state_dict=model.state_dict(), meta={}), folder / 'x.pth')
    return folder


def test_a_higher_threshold_costs_less(folder):
    done = run(
        folder, SWEEP, CONFIG, 'x.pth', '--work-dir', 'out',
        '--thresholds', '0.4', '0.5', '0.6',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with (folder / 'out' / 'threshold_sweep.csv').open() as file:
        rows = [
            {k: float(v) for k, v in r.items()} for r in csv.DictReader(file)
        ]
    macs = [row['macs'] for row in rows]
    assert macs == sorted(macs, reverse=True) and macs[0] > macs[-1]
    assert (folder / 'out' / 'threshold_sweep.png').stat().st_size > 5000
    # and each is the result of test.py
    done = run(
        folder, ROOT / 'tools' / 'test.py', CONFIG, 'x.pth',
        '--gate-threshold', '0.6', '--out', 'm.json', '--out-item', 'metrics',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads((folder / 'm.json').read_text())
    assert told['macs/mean'] == pytest.approx(rows[2]['macs'])
    assert told['accuracy/top1'] == pytest.approx(rows[2]['accuracy'])


def test_the_checkpoint_of_another_network(folder):
    options = '--cfg-options', 'model.backbone.backbone.depth=32'
    done = run(folder, SWEEP, CONFIG, 'x.pth', '--thresholds', '.5', *options)
    assert done.returncode == 2
    assert 'x.pth is a checkpoint of another config' in done.stderr


@pytest.mark.parametrize(
    ('command', 'told'),
    [
        ((SWEEP, CONFIG, 'x.pth', '--thresholds', '1.5'), '--thresholds 1.5'),
        ((SWEEP, CONFIG, 'y.pth'), 'y.pth'),
        (
            (SWEEP, ROOT / 'configs' / 'dense_resnet20_digits.py', 'x.pth'),
            'fgc-mm sweep finds no gate',
        ),
        (
            (ROOT / 'tools' / 'test.py',
             ROOT / 'configs' / 'dense_resnet20_digits.py', 'x.pth',
             '--gate-threshold', '0.4'),
            '--gate-threshold 0.4 finds no gate',
        ),
        (
            (ROOT / 'tools' / 'test.py',
             ROOT / 'configs' / 'fbs_resnet20_folder.py', 'x.pth',
             '--gate-threshold', '0.4'),
            '--gate-threshold 0.4 does not fit FBSGate',
        ),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence(folder, command, told):
    done = run(folder, *command)
    assert done.returncode == 2
    (line,) = (done.stdout + done.stderr).splitlines()
    assert told in line


@pytest.mark.parametrize(
    ('text', 'told'),
    [
        ('test_dataloader = test_cfg = test_evaluator = None', 'dataloader'),
        ('model = None', 'has no model'),
    ],
)
def test_a_config_without_a_part_is_refused(tool, folder, text, told):
    config = folder / 'without.py'
    config.write_text(f'_base_ = [{str(CONFIG)!r}]\n{text}\n')
    name = 'analysis_tools/sweep_threshold'
    code, said = tool(name, config, folder / 'x.pth')
    (line,) = said.splitlines()
    assert code == 2 and told in line


def test_a_result_is_checked_before_and_the_table_written_first(tool, folder):
    result = dict.fromkeys(stored_results.NEEDED, 0) | dict(error=-1)
    (folder / 'seed0.json').write_text(json.dumps(result))
    command = (
        'analysis_tools/sweep_threshold', CONFIG, folder / 'x.pth',
        '--result', folder / 'seed0.json', '--work-dir', folder / 'kept',
        '--thresholds',
    )  # fmt: skip
    code, said = tool(*command, 0.3, 0.7)
    assert code == 2 and 'without 0.5' in said
    assert not (folder / 'kept').exists()
    code, said = tool(*command, 0.5)
    assert code == 2 and 'has an error of -1.00 %' in said
    assert (folder / 'kept' / 'threshold_sweep.csv').is_file()
