"""tools/test.py through the command line, on a CPU."""

import json
import os
import pickle
import sys
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config

from fgc_mm.cli.commands.test import show_results
from fgc_mm.deploy import build_model
from fgc_mm.errors import FGCError

from .conftest import TOOLS, error_lines, load_tool, run

ROOT = TOOLS.parent
PAIR = '--cfg-options'


@pytest.fixture
def refused(tool, trained, tmp_path):
    """Runs test.py to its error: one sentence, code 2, nothing written."""

    def call(*arguments, checkpoint=trained.checkpoint, config='tiny net.py'):
        work_dir = tmp_path / 'work'
        code, text = tool(
            'test', config, checkpoint, '--work-dir', work_dir, *arguments
        )
        (line,) = error_lines(text)
        assert code == 2 and not work_dir.exists()
        return line

    return call


def test_predictions(project, trained, tmp_path):
    out = tmp_path / 'new folder' / 'results.pkl'
    command = [sys.executable, TOOLS / 'test.py', 'tiny net.py']
    command += [trained.checkpoint, '--work-dir', tmp_path, '--out', out]
    done = run([*command, PAIR, 'test_dataloader.batch_size=3'], project)
    assert done.returncode == 0, done.stdout
    assert 'accuracy/top1: ' in done.stdout
    results = pickle.loads(out.read_bytes())
    assert len(results) == 8 and results[0]['pred_score'].shape == (2,)
    assert list(out.parent.iterdir()) == [out]


def test_metrics_with_augmentation(project, trained, tmp_path):
    out = tmp_path / 'metrics.json'
    out.write_text('the old one')
    done = run(
        [sys.executable, TOOLS / 'test.py', 'tiny net.py', trained.checkpoint]
        + ['--work-dir', tmp_path, '--out', out, '--out-item', 'metrics']
        + ['--tta', '--amp', '--no-pin-memory'],
        project,
    )
    assert done.returncode == 0, done.stdout
    assert 'accuracy/top1' in json.loads(out.read_text())
    assert 'AverageClsScoreTTA' in done.stdout


@pytest.mark.parametrize(
    'arguments, words',
    [
        (['--out', 'a.json'], 'pred are written as .pkl, .pickle'),
        (['--out', 'a.txt', '--out-item', 'metrics'], 'as .json, .yaml'),
        (['--out-item', 'pred'], 'has no output file'),
        (['--threshold-sweep', 'a.txt'], 'a sweep is written as .json'),
        (['--threshold-sweep', 'a.json'], 'a.json finds no gate'),
        (['--threshold-sweep', 'a.json', '--tta'], 'combined with --tta'),
        (
            ['--threshold-sweep', 'a.json', '--out', 'a.pkl'],
            'combined with --out-item pred',
        ),
        (['--dynamic', '--tta'], '--dynamic cannot be combined with --tta'),
        (['--dynamic', '--amp'], '--dynamic cannot be combined with --amp'),
        (['--dynamic'], '--dynamic float32 finds no gate'),
        (['--show'], 'no default_hooks.visualization'),
        ([PAIR, 'x'], "'x' is not a pair"),
    ],
)
def test_bad_arguments(refused, arguments, words):
    assert words in refused(*arguments)


@pytest.mark.parametrize(
    'evaluator',
    [
        "dict(type='fgc_mm.DynamicMACs')",
        "[dict(type='Accuracy'), dict(type='DynamicMACs')]",
        "dict(type='Evaluator', metrics=[dict(type='fgc_mm.DynamicMACs')])",
    ],
)
def test_augmentation_refuses_counting(refused, project, tmp_path, evaluator):
    config = tmp_path / 'counted.py'
    config.write_text(
        f'_base_ = {str(project / "tiny net.py")!r}\n'
        f'test_evaluator = {evaluator}\n'.replace(
            '= dict(', '= dict(_delete_=True, '
        )
    )
    text = refused('--tta', config=config)
    assert '--tta cannot be combined with DynamicMACs' in text


@pytest.mark.parametrize('width', [8, 4])
def test_the_checkpoint_of_another_network(tool, trained, tmp_path, width):
    """mmengine keeps random weights for those that do not fit."""
    state = torch.load(trained.checkpoint, weights_only=False)
    if width == 4:  # the same network, in which one weight is missing
        del state['state_dict']['head.fc.bias']
    other = tmp_path / 'other.pth'
    torch.save(state, other)
    code, text = tool(
        'test', 'tiny net.py', other, '--work-dir', tmp_path / 'work',
        *([PAIR, 'model.backbone.base_channels=8'] if width == 8 else []),
    )  # fmt: skip
    (line,) = error_lines(text)
    assert code == 2 and 'other.pth is a checkpoint of another config' in line
    assert ('1 weights of this model are missing' in line) == (width == 4)
    assert ('size mismatch' in line) == (width == 8)


def test_the_config_of_the_training_stays(tool, trained, tmp_path):
    (tmp_path / 'tiny net.py').write_text('# of the training')
    code, _ = tool(
        'test', 'tiny net.py', trained.checkpoint, '--work-dir', tmp_path,
        PAIR, 'test_dataloader.batch_size=3',
    )  # fmt: skip
    assert code == 0
    assert (tmp_path / 'tiny net.py').read_text() == '# of the training'
    (tested,) = tmp_path.glob('*/tiny net.py')
    assert Config.fromfile(tested).test_dataloader.batch_size == 3


@pytest.mark.parametrize('option', ['--out', '--threshold-sweep'])
def test_a_file_that_cannot_be_written(refused, tmp_path, option):
    """The error comes before the test, not after it."""
    (tmp_path / 'file').write_text('')
    name = 'a.pkl' if option == '--out' else 'a.json'
    path = tmp_path / 'file' / name
    assert refused(option, path) == (
        f'error: {path}: Not a directory; check the path.'
    )


def test_augmentation_needs_a_pipeline(refused, tmp_path, project):
    config = tmp_path / 'bare.py'
    config.write_text(
        f'_base_ = {str(project / "tiny net.py")!r}\n'
        "test_dataloader = dict(dataset=dict(_delete_=True, type='Bare'))\n"
    )
    assert 'finds no pipeline' in refused('--tta', config=config)


def test_config_without_a_test(refused, tmp_path):
    config = tmp_path / 'no_test.py'
    config.write_text('model = dict()\n')
    assert 'has no test_dataloader' in refused(config=config)


def test_bad_checkpoints(refused, trained, tmp_path):
    path = tmp_path / 'some.pth'
    assert 'is not a file' in refused(checkpoint=path)
    path.touch()
    assert 'is empty' in refused(checkpoint=path)
    path.write_bytes(trained.checkpoint.read_bytes()[:-9])
    assert 'cannot be read' in refused(checkpoint=path)
    torch.save([1], path)
    assert 'contains a list' in refused(checkpoint=path)


def test_hostile_checkpoint(refused, tmp_path):
    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / 'made'),)

    path = tmp_path / 'hostile.pth'
    torch.save(dict(a=torch.ones(1), b=Payload()), path)
    assert 'refers to code' in refused(checkpoint=path)
    assert not (tmp_path / 'made').exists()


def test_failed_write_leaves_the_old_results(tmp_path):
    out = tmp_path / 'results.pkl'
    out.write_text('the old ones')
    with pytest.raises((AttributeError, pickle.PicklingError)):
        load_tool('test').write_results([lambda: None], out)
    assert out.read_text() == 'the old ones'
    assert list(tmp_path.iterdir()) == [out]


def test_failed_rename_leaves_nothing(tmp_path):
    out = tmp_path / 'results.pkl'
    out.mkdir()
    with pytest.raises(OSError, match=r'results\.pkl'):
        load_tool('test').write_results([1], out)
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize('main', [True, False])
def test_metrics_come_from_the_main_process(monkeypatch, tmp_path, main):
    module = load_tool('test')
    monkeypatch.setattr(module, 'is_main_process', lambda: main)
    out = tmp_path / 'metrics.json'
    runner = SimpleNamespace(test=lambda: dict(accuracy=1))
    asked = dict(out=str(out), out_item='metrics', threshold_sweep=None)
    asked.update(dynamic=None)
    module.test(runner, SimpleNamespace(**asked))
    assert out.exists() == main


def test_the_dynamic_model_has_the_masked_ones_metrics(tool, tmp_path):
    """Every image of a batch with its own channels."""
    config = str(ROOT / 'configs' / 'bas_resnet20_digits.py')
    torch.manual_seed(0)
    model = build_model(Config.fromfile(config))
    for gate in model.backbone.gates.values():
        torch.nn.init.normal_(gate.expand.weight)
        torch.nn.init.normal_(gate.expand.bias)
    checkpoint = tmp_path / 'x.pth'
    torch.save(dict(state_dict=model.state_dict(), meta={}), checkpoint)
    found = []
    for number, options in enumerate([[], ['--dynamic']]):
        out = tmp_path / f'{number}.json'
        code, text = tool(
            'test', config, checkpoint, '--work-dir', tmp_path / 'work',
            '--out', out, '--out-item', 'metrics', *options,
        )  # fmt: skip
        assert code == 0, text
        found.append(json.loads(out.read_text()))
    logs = [p.read_text() for p in (tmp_path / 'work').rglob('*.log')]
    assert any('dynamic execution: program in float32' in x for x in logs)
    masked, dynamic = found
    for name in ('accuracy/top1', 'macs/mean', 'macs/p95'):
        assert dynamic[name] == pytest.approx(masked[name], rel=1e-6)
    assert 0 < dynamic['macs/pruning_ratio'] < 100


def test_augmentation_needs_no_teacher(tool, project, trained, tmp_path):
    """Whose file may be gone."""
    config = tmp_path / 'distilled.py'
    config.write_text(
        f'_base_ = {str(project / "tiny net.py")!r}\n'
        "model = dict(distillation=dict(checkpoint='gone.pth'))\n"
    )
    code, said = tool(
        'test', config, trained.checkpoint, '--tta',
        '--work-dir', tmp_path / 'work',
    )  # fmt: skip
    assert code == 0, said


def test_the_checkpoint_is_tested_whatever_the_options_say(
    tool, trained, tmp_path
):
    """A comparison passes the options of the training on."""
    other = tmp_path / 'other.pth'
    state = torch.load(trained.checkpoint, weights_only=False)
    for value in state['state_dict'].values():
        value.zero_()
    torch.save(state, other)
    found = []
    for number, more in enumerate(([], [PAIR, f'load_from={other}'])):
        out = tmp_path / f'{number}.json'
        code, text = tool(
            'test', 'tiny net.py', trained.checkpoint, '--out', out,
            '--out-item', 'metrics', '--work-dir', tmp_path / 'work', *more,
        )  # fmt: skip
        assert code == 0, text
        found.append(out.read_text())
    assert found[0] == found[1]


def test_an_interval_of_no_image():
    cfg = Config(dict(default_hooks=dict(visualization=dict(type='x'))))
    with pytest.raises(FGCError, match='--interval 0 shows no image'):
        show_results(cfg, SimpleNamespace(interval=0))
