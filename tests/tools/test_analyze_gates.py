"""tools/analysis_tools/analyze_gates.py, in this process."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from .conftest import error_lines, load_tool

ROOT = Path(__file__).resolve().parents[2]
TOOL = 'analysis_tools/analyze_gates'
FAST = '--embedding', 'pca', '--no-pictures', '--images', '40'


def analysis_conftest():
    """tests/analysis/conftest.py, which makes projects."""
    path = ROOT / 'tests' / 'analysis' / 'conftest.py'
    spec = importlib.util.spec_from_file_location('analysis_conftest', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def gated(tmp_path_factory):
    """A gated config and two checkpoints of random weights."""
    folder = tmp_path_factory.mktemp('gated')
    make = analysis_conftest().make_project
    made = make(folder)
    second = folder / 'other' / 'concrete_0.pth'
    second.parent.mkdir()
    Path(make(folder, seed=1).checkpoint).rename(second)
    return SimpleNamespace(
        config=made.config, first=Path(made.checkpoint), second=second
    )


def test_two_checkpoints(tool, gated, tmp_path, monkeypatch):
    # tests/analysis/test_report.py has a look at whole figures
    monkeypatch.setattr(
        'fgc_mm.analysis.report.figure_bytes', lambda *_: b'<svg/>'
    )
    out = tmp_path / 'a new folder'
    code, text = tool(
        TOOL, gated.config, gated.first, gated.second, '--out', out,
        '--sites', 'layer3.[12].*', *FAST,
    )  # fmt: skip
    assert code == 0, text
    page = (out / 'report.html').read_text()
    folder = gated.first.parent.name
    assert f'{folder}/concrete_0' in page and 'other/concrete_0' in page
    assert 'layer3.2.conv1' in page and 'layer3.0.conv1' not in page
    assert len([*(out / 'passes').iterdir()]) == 2
    assert (out / 'tables' / 'frequency.csv').stat().st_size > 10_000


@pytest.fixture
def refused(tool, gated, tmp_path):
    """Runs the tool to its error: one sentence, code 2, no report."""

    def call(*arguments, config=gated.config, checkpoint=gated.first):
        out = tmp_path / 'out'
        code, text = tool(
            TOOL, config, checkpoint, *arguments, '--out', out,
            '--embedding', 'pca',
        )  # fmt: skip
        (line,) = error_lines(text)
        assert code == 2 and not (out / 'report.html').exists()
        return line

    return call


@pytest.mark.parametrize(
    'arguments, words',
    [
        (['--sites', 'layer9.*'], '--sites layer9.* matches none of the 3'),
        (['--clusters', '41'], '--clusters 41 does not fit 40 images'),
        (['--images', '5', '--clusters', '6'],
         '--clusters 6 does not fit 5 images'),
        (['--images', '0'], '--images 0 leaves nothing'),
        (['--neighbors', '40'], '--neighbors 40 does not fit 40 images'),
        (['--seed', '-1'], '--seed -1 is outside'),
        (['--gate-vector', 'x'], "gate vector 'x' is unknown"),
        (['--cfg-options', 'test_dataloader.dataset.indices=1'],
         'all 1 images have the class'),
        (['--cfg-options', 'test_dataloader.dataset.indices=0'],
         'has no image'),
        (['--cfg-options', 'test_dataloader=None'], 'no test_dataloader'),
    ],
)  # fmt: skip
def test_bad_arguments(refused, arguments, words):
    assert words in refused(*arguments)


def test_sites_are_checked_before_the_pass(tool, gated, tmp_path):
    arguments = '--sites', 'layer9.*', '--out', tmp_path / 'out'
    _, text = tool(TOOL, gated.config, gated.first, *arguments)
    assert 'matches none' in text and 'one pass over' not in text


def test_checkpoints_without_gates(refused, gated, tmp_path):
    dense = ROOT / 'configs' / 'dense_resnet20_digits.py'
    weights = torch.load(gated.first)['state_dict']
    plain = {k: v for k, v in weights.items() if 'gates.' not in k}
    path = tmp_path / 'dense.pth'
    torch.save(plain, path)
    assert 'dense.pth has no gates' in refused(checkpoint=path)
    assert 'has no gates' in refused(config=dense)
    torch.save({'backbone.gates.x': torch.ones(1)}, path)
    assert 'checkpoint of another config' in refused(checkpoint=path)


def test_missing_files(refused, tmp_path):
    assert 'is not a file' in refused(config=tmp_path / 'x.py')
    assert 'is not a file' in refused(checkpoint=tmp_path / 'x.pth')


def test_names_that_differ_in_their_suffix():
    names = load_tool('analysis_tools/analyze_gates').checkpoint_names
    assert names(['x/a.pth', 'y/a.pth']) == ['x/a', 'y/a']
    assert names(['/x/a.pth', '/x/a.pt']) == ['/x/a.pth', '/x/a.pt']


def test_a_checkpoint_given_twice(refused, gated):
    again = gated.first.parent / 'other' / '..' / gated.first.name
    assert 'given more than once' in refused(again)


def test_no_pictures(refused, gated, tmp_path):
    config = tmp_path / 'five_channels.py'
    config.write_text(
        f'_base_ = {str(gated.config)!r}\n'
        "custom_imports = dict(imports=['wide_digits'], "
        'allow_failed_imports=False)\n'
        "test_dataloader = dict(dataset=dict(type='WideDigits'))\n"
    )
    (tmp_path / 'wide_digits.py').write_text(
        'import torch\n'
        'from fgc_mm.datasets.digits import Digits\n'
        'from mmpretrain.registry import DATASETS\n'
        '@DATASETS.register_module(force=True)\n'
        'class WideDigits(Digits):\n'
        '    calls = 0\n'
        '    def __getitem__(self, index):\n'
        '        WideDigits.calls += 1\n'
        '        if WideDigits.calls > 40:\n'
        '            raise OSError("the images are gone")\n'
        '        return super().__getitem__(index)\n'
    )
    line = refused(config=config)
    assert 'the images are gone' in line and '--no-pictures' in line


def test_a_file_in_the_place_of_the_folder(tool, gated, tmp_path):
    out = tmp_path / 'file'
    out.write_text('in the way')
    code, text = tool(TOOL, gated.config, gated.first, '--out', out, *FAST)
    (line,) = error_lines(text)
    assert code == 2 and 'file' in line
    assert out.read_text() == 'in the way'
