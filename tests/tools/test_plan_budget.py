"""tools/analysis_tools/plan_budget.py, as a user types it."""

import json
import re
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS

from fgc_mm.engine.config_options import read_options
from fgc_mm.errors import FGCError

from .conftest import error_lines, load_tool, run

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / 'tools' / 'analysis_tools' / 'plan_budget.py'
CONFIG = """
_base_ = ['{root}/configs/bas_resnet20_digits.py']
model = dict(
    backbone=dict(gate=dict(_delete_=True, type='fgc_mm.FTWTGate')),
    gate_losses=[dict(type='fgc_mm.MaskPredictionLoss', ratio=0.9)],
)
"""


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """A folder with an FTWT config and a checkpoint of the dense network."""
    folder = tmp_path_factory.mktemp('plan')
    (folder / 'ftwt.py').write_text(CONFIG.format(root=ROOT))
    dense = Config.fromfile(ROOT / 'configs' / 'dense_resnet20_digits.py')
    torch.manual_seed(0)
    network = MODELS.build(dense.model)
    torch.save(dict(state_dict=network.state_dict()), folder / 'dense.pth')
    return folder


def plan(folder, *arguments, config='ftwt.py', checkpoint='dense.pth'):
    command = [sys.executable, TOOL, config, checkpoint, *arguments]
    return run([*command, '--images', '64'], folder)


def test_the_ratio_that_it_names_costs_the_budget(files):
    done = plan(files, '--budget', '0.45')
    assert done.returncode == 0, done.stdout
    ratio = re.search(r'gate_losses\.0\.ratio=(0\.\d+)', done.stdout)[1]
    row = next(
        x for x in done.stdout.splitlines() if f' {float(ratio):.4g} ' in x
    )
    share = float(re.search(r'(\d+\.\d) % │|(\d+\.\d)%', row)[2])
    assert share == pytest.approx(45, abs=1)
    shares = [
        float(x) for x in re.findall(r'│ +(\d+\.\d)% │ +-?\d', done.stdout)
    ]
    assert shares == sorted(shares) and len(shares) == 12


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        (['--budget', '1.5'], r'a budget of 1\.5 is not a fraction'),
        (['--budget', '0.001'], r'possible cost is 0\.\d+ \(with gates'),
        (['--budget', '0.4', '--cfg-options',
          'model.gate_losses.0.target=best'], r"target='best'"),
    ],
)  # fmt: skip
def test_bad_input_in_one_sentence(files, arguments, sentence):
    done = plan(files, *arguments)
    assert done.returncode == 2
    (line,) = error_lines(done.stdout)
    assert re.search(sentence, line)


def test_a_config_without_a_target_is_refused(files):
    config = ROOT / 'configs' / 'bas_resnet20_digits.py'
    done = plan(files, '--budget', '0.4', config=config)
    assert 'has no MaskPredictionLoss' in error_lines(done.stdout)[0]


def deeper(state):
    """A network that has all weights of this one, and more."""
    return {**state, 'backbone.layer1.3.conv1.weight': torch.ones(16, 16, 3)}


def wider(state):
    """The names of this network, of other shapes."""
    return {key: torch.cat([value, value]) if value.dim() else value
            for key, value in state.items()}  # fmt: skip


def shallower(state):
    """This network without its last block."""
    return {k: v for k, v in state.items() if 'layer3.2' not in k}


def foreign(state):
    """No name of this network, as of a bare backbone."""
    return {k.removeprefix('backbone.'): v for k, v in state.items()}


@pytest.mark.parametrize(
    ('change', 'told'),
    [
        (deeper, r'0 .* missing, 1 are unknown .* 0 have another shape'),
        (wider, r'0 .* missing, 0 are unknown to it and \d\d+ have'),
        (shallower, r'1\d .* missing, 0 are unknown .* \(layer3\.2\.'),
        (foreign, r'\d\d+ weights of this model are missing'),
    ],
)
def test_another_networks_checkpoint_does_not_fit(files, change, told):
    state = torch.load(files / 'dense.pth')['state_dict']
    network = MODELS.build(
        Config.fromfile(ROOT / 'configs' / 'dense_resnet20_digits.py').model
    ).backbone
    path = files / f'{change.__name__}.pth'
    torch.save(dict(state_dict=change(state)), path)
    with pytest.raises(FGCError, match=told):
        load_tool('analysis_tools/plan_budget').load_dense(
            network, str(path), 'ftwt.py'
        )


def test_another_networks_checkpoint_is_refused(files):
    state = torch.load(files / 'dense.pth')['state_dict']
    torch.save(dict(state_dict=deeper(state)), files / 'other.pth')
    done = plan(files, '--budget', '0.4', checkpoint='other.pth')
    assert done.returncode == 2
    (line,) = error_lines(done.stdout)
    assert 'other.pth is not of the dense network that ftwt.py' in line
    assert 'looking' not in done.stdout


@pytest.mark.parametrize('target', ['mass', 'uniform'])
def test_the_option_has_all_digits(files, target):
    """A uniform target's MACs change in steps, of up to 4 points here."""
    done = plan(
        files, '--budget', '0.45', '--out', 'found.json', '--cfg-options',
        f'model.gate_losses.0.target={target}',
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    found = json.loads((files / 'found.json').read_text())
    assert read_options(found['options']) == {
        'model.gate_losses.0.ratio': found['ratio']
    }
    assert found['options'][0] in ' '.join(done.stdout.split())
