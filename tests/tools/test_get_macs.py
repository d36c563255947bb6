"""tools/analysis_tools/get_macs.py, as a user types it."""

import sys
from pathlib import Path

import pytest

from .conftest import error_lines, run

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / 'tools' / 'analysis_tools' / 'get_macs.py'


def get_macs(folder, *arguments):
    return run([sys.executable, TOOL, *arguments], folder)


@pytest.mark.parametrize(
    ('config', 'base', 'gates'),
    [
        ('fgc_resnet20_cifar10', '40,550,400', '9,984'),
        ('fgc_resnet56_cifar100', '125,485,056', '31,488'),
    ],
)
def test_the_published_constants_are_printed(tmp_path, config, base, gates):
    done = get_macs(tmp_path, ROOT / 'configs' / f'{config}.py')
    assert done.returncode == 0, done.stdout
    assert base in done.stdout
    assert gates in done.stdout


def test_expectation_is_linear_where_sites_share_no_layer(tmp_path):
    config = ROOT / 'configs' / 'fgc_resnet20_digits.py'
    done = get_macs(tmp_path, config, '--keep-ratio', '0.5')
    # stem 27,648 and classifier 640 stay, the blocks halve, gates are added
    blocks = 2_535_040 - 27_648 - 640
    assert f'{27_648 + 640 + blocks // 2 + 9_984:,}' in done.stdout


@pytest.mark.parametrize(
    ('step', 'shape'),
    [
        ("dict(type='Resize', scale=16)", '3x16x16'),
        ("dict(type='Resize', scale=(24, 16))", '3x16x24'),
        ("dict(type='RandomResizedCrop', scale=(16, 24))", '3x16x24'),
        ("dict(type='RandomCrop', crop_size=(16, 24))", '3x16x24'),
    ],
)
def test_the_last_size_in_the_pipeline_counts(tmp_path, step, shape):
    config = tmp_path / 'config.py'
    config.write_text(
        f'_base_ = [{str(ROOT / "configs" / "fgc_resnet20_digits.py")!r}]\n'
        "crop = dict(type='RandomCrop', crop_size=8)\n"
        f'pipeline = [crop, {step}]\n'
        'train_dataloader = dict(dataset=dict(pipeline=pipeline))\n'
    )
    assert shape in get_macs(tmp_path, config).stdout


def test_a_dense_config_has_no_sites(tmp_path):
    config = ROOT / 'configs' / 'dense_resnet20_cifar10.py'
    done = get_macs(tmp_path, config)
    assert done.returncode == 0
    assert '40,551,040' in done.stdout
    assert 'MACs of the sites' not in done.stdout


@pytest.mark.parametrize(
    ('arguments', 'told'),
    [
        (['nothing.py'], 'nothing.py is not a file'),
        (['CONFIG', '--keep-ratio', '2'], 'keep_ratio=2.0'),
        (['CONFIG', '--shape', '1', '2', '3'], '--shape 1 2 3'),
        (['CONFIG', '--cfg-options', 'model'], "'model' is not a pair"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path, arguments, told):
    config = str(ROOT / 'configs' / 'fgc_resnet20_digits.py')
    arguments = [config if a == 'CONFIG' else a for a in arguments]
    done = get_macs(tmp_path, *arguments)
    assert done.returncode != 0
    (line,) = error_lines(done.stdout)
    assert told in line
