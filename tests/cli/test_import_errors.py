"""Missing packages are reported in one sentence."""

import sys

import pytest
from mmengine.registry import VISUALIZERS

from fgc_mm.cli.run_tool import _sentence
from fgc_mm.engine.config_file import load_config

BACKENDS = {
    'WandbVisBackend': ('wandb', 'run `pip install wandb`'),
    'TensorboardVisBackend': ('tensorboard', 'run `pip install future'),
    'ClearMLVisBackend': ('clearml', 'run `pip install clearml`'),
    'MLflowVisBackend': ('mlflow', 'run `pip install mlflow`'),
}


@pytest.mark.parametrize('backend', BACKENDS)
def test_a_visualizer_whose_package_is_missing(backend, monkeypatch, tmp_path):
    module, remedy = BACKENDS[backend]
    for name in (module, 'tensorboardX', 'torch.utils.tensorboard'):
        monkeypatch.setitem(sys.modules, name, None)
    cfg = dict(
        type='Visualizer',
        name=f'{backend} of a test',
        save_dir=str(tmp_path),
        vis_backends=[dict(type=backend)],
    )
    with pytest.raises(ImportError) as error:
        _ = VISUALIZERS.build(cfg).get_backend(backend).experiment
    sentence = _sentence(error.value)
    assert 'cannot be imported' in sentence and '\n' not in sentence
    assert remedy in sentence


@pytest.fixture
def config(tmp_path, monkeypatch):
    """Writes a config that imports a package, in a folder of its own."""
    monkeypatch.setattr(sys, 'path', list(sys.path))
    path = tmp_path / 'project' / 'config.py'
    path.parent.mkdir()

    def write(name):
        path.write_text(
            f"custom_imports = dict(imports=['fgc_mm', {name!r}],"
            ' allow_failed_imports=False)\n'
        )
        return path

    return write


def test_a_package_beside_the_config(config, monkeypatch, tmp_path):
    path = config('fgc_test_own_package')
    package = path.parent / 'fgc_test_own_package'
    package.mkdir()
    (package / '__init__.py').write_text('from . import net\n')
    (package / 'net.py').write_text('')
    monkeypatch.chdir(tmp_path)  # from wherever the tool is started
    load_config(str(path))
    assert 'fgc_test_own_package.net' in sys.modules


def test_modules_beside_the_config_hide_no_package(config, monkeypatch):
    path = config('mmengine')
    (path.parent / 'json.py').write_text('raise SystemExit\n')
    monkeypatch.delitem(sys.modules, 'json')
    load_config(str(path))
    __import__('json')


def test_a_package_that_is_nowhere(config):
    with pytest.raises(ImportError) as error:
        load_config(str(config('fgc_test_no_package')))
    sentence = _sentence(error.value)
    assert sentence.startswith('fgc_test_no_package cannot be imported')
    assert "in the config's folder" in sentence and '\n' not in sentence


def test_a_bug_in_an_import_keeps_its_traceback(config):
    path = config('fgc_test_broken')
    (path.parent / 'fgc_test_broken.py').write_text(
        'from fgc_mm.nowhere import x\n'
    )
    with pytest.raises(ImportError) as error:
        load_config(str(path))
    assert _sentence(error.value) is None


def test_an_import_error_that_names_no_module_keeps_its_text():
    assert _sentence(ModuleNotFoundError('Please install x to use y')) is None
