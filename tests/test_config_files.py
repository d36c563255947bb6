"""Configs of the package, from any folder."""

from pathlib import Path

import pytest
from mmengine.config import Config

from fgc_mm import FGCError, config_file, config_files
from fgc_mm.engine.config_file import load_config

ROOT = Path(__file__).resolve().parents[1]
NAME = 'fgc_resnet20_digits'


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr('sys.path', [*__import__('sys').path])


@pytest.mark.parametrize('name', [NAME, f'{NAME}.py', f'configs/{NAME}.py'])
def test_a_name_is_looked_up_in_the_package(name):
    assert config_file(name) == str(ROOT / 'configs' / f'{NAME}.py')
    assert load_config(name).train_cfg.max_epochs == 100


def test_a_plan_is_looked_up_too():
    name = 'configs/studies/figure5_rho.yaml'
    assert config_file(name) == str(ROOT / name)
    assert 'studies/figure5_rho.yaml' in config_files.list_configs()


def test_a_file_comes_first():
    Path(f'{NAME}.py').write_text('x = 1\n')
    assert config_file(f'{NAME}.py') == f'{NAME}.py'
    assert load_config(f'{NAME}.py').x == 1
    assert config_file(NAME) == str(ROOT / 'configs' / f'{NAME}.py')


def test_the_configs_of_a_wheel_come_first(tmp_path, monkeypatch):
    inside = tmp_path / '.mim' / 'configs'
    inside.mkdir(parents=True)
    (inside / f'{NAME}.py').write_text('x = 1\n')
    monkeypatch.setattr(config_files, 'PACKAGE', tmp_path)
    assert config_file(NAME) == str(inside / f'{NAME}.py')
    assert config_files.list_configs() == [f'{NAME}.py']


@pytest.mark.parametrize(
    ('name', 'told'),
    [
        ('fgc_resnet20_digit.py', 'did you mean fgc_resnet20_digits.py?'),
        ('some/where/x.py', 'some/where/x.py is not a file'),
        ('configs', 'configs is not a file'),
        ('', 'is not a file'),
        ('/', '/ is not a file'),
    ],
)
def test_an_unknown_name_is_one_sentence(name, told):
    with pytest.raises(FGCError) as error:
        config_file(name)
    assert told in str(error.value) and '`fgc-mm configs`' in str(error.value)


def test_a_config_elsewhere_inherits_by_name():
    """With mmengine alone, which upstream's tools read it with."""
    Path('mine.py').write_text(
        f"_base_ = [__import__('fgc_mm').config_file('{NAME}.py')]\n"
        'train_cfg = dict(max_epochs=7)\n'
    )
    cfg = Config.fromfile('mine.py')
    assert cfg.train_cfg.max_epochs == 7
    assert cfg.model.type == 'fgc_mm.GatedImageClassifier'
    assert cfg.pretty_text and '_base_' not in cfg


@pytest.mark.parametrize(
    'base', [f'fgc_mm::{NAME}.py', 'fgc_mm::_base_/default_runtime.py']
)
def test_a_base_with_colons_is_one_sentence(base):
    Path('mine.py').write_text(f'_base_ = [{base!r}]\n')
    with pytest.raises(FGCError, match=r"__import__\('fgc_mm'\)\.config_file"):
        load_config('mine.py')
