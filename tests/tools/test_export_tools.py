"""tools/export: from a trained config to other files."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from torch import nn

from fgc_mm.deploy import PlainForward, build_model, build_trained

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / 'configs' / 'bas_resnet20_digits.py'
DENSE = ROOT / 'configs' / 'dense_resnet20_digits.py'
OTHER = ROOT / 'configs' / 'bas_resnet20_cifar100.py'
EXPORT = ROOT / 'tools' / 'export'


def run(folder, *command):
    return subprocess.run(
        [sys.executable, '-W', 'ignore', *map(str, command)],
        cwd=folder, text=True, capture_output=True, timeout=300,
    )  # fmt: skip


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """With the checkpoint of a model whose gates do all there is to do."""
    folder = tmp_path_factory.mktemp('export')
    torch.manual_seed(0)
    model = build_model(Config.fromfile(CONFIG))
    for gate in model.backbone.gates.values():
        nn.init.normal_(gate.squeeze.weight)
        draw = torch.rand(gate.expand.bias.shape)
        gate.expand.bias.data[draw < 0.3] -= 100
        gate.expand.bias.data[draw > 0.8] += 100
    torch.save(dict(state_dict=model.state_dict(), meta={}), folder / 'x.pth')
    return folder


def test_compact_can_be_moved_and_tested(folder):
    done = run(
        folder, EXPORT / 'compact.py', CONFIG, 'x.pth', '--out', 'first',
        '--images', '2000', '--split', 'test', '--test',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert 'on the test set' in done.stdout
    (folder / 'first').rename(folder / 'second')
    done = run(
        folder, ROOT / 'tools' / 'test.py', 'second/config.py',
        'second/model.pth', '--out', 'm.json', '--out-item', 'metrics',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    small = json.loads((folder / 'm.json').read_text())
    done = run(
        folder, ROOT / 'tools' / 'test.py', CONFIG, 'x.pth',
        '--out', 'w.json', '--out-item', 'metrics',
    )  # fmt: skip
    whole = json.loads((folder / 'w.json').read_text())
    # counted on the test set itself: not one prediction may change
    assert small['accuracy/top1'] == whole['accuracy/top1']
    assert small['macs/mean'] <= whole['macs/mean']
    # the base stays the network that was compacted
    assert small['macs/dense'] == whole['macs/dense']
    assert small['macs/pruning_ratio'] >= whole['macs/pruning_ratio']
    cfg = Config.fromfile(folder / 'second' / 'config.py')
    build_trained(cfg, folder / 'second' / 'model.pth')


def test_torch_export_needs_nothing_of_ours(folder):
    done = run(
        folder, EXPORT / 'torch_export.py', CONFIG, 'x.pth', '--out', 'x.pt2',
        '--images', '4',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    code = (
        'import sys, torch; f = torch.export.load("x.pt2").module(); '
        'print(f(torch.zeros(5, 3, 8, 8)).shape, '
        'any(n in sys.modules for n in ("fgc_mm", "mmpretrain", "mmengine")))'
    )
    assert 'torch.Size([5, 10]) False' in run(folder, '-c', code).stdout


@pytest.mark.parametrize('options', [(), ('--dynamic',)])
def test_onnx_says_what_torch_says(folder, options):
    done = run(
        folder, EXPORT / 'onnx.py', CONFIG, 'x.pth', '--out', 'x.onnx',
        '--images', '4', *options,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert 'logits of 4 images of 3x8x8 differ by' in done.stdout
    import onnxruntime

    session = onnxruntime.InferenceSession(
        folder / 'x.onnx', providers=['CPUExecutionProvider']
    )
    model = build_trained(Config.fromfile(CONFIG), folder / 'x.pth')
    image = torch.randn(1, 3, 8, 8)
    (got,) = session.run(None, {'images': image.numpy()})
    with torch.no_grad():
        wanted = PlainForward(model)(image)
    torch.testing.assert_close(torch.from_numpy(got), wanted)


def test_keep_ratio_without_training(folder):
    done = run(
        folder, EXPORT / 'set_keep_ratio.py', CONFIG, '--keep-ratio', '0.44',
        '--out', 'k.pth', '--images', '64',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [x for x in done.stdout.splitlines() if 'keep ratio' in x]
    assert len(lines) == 9 and all('ratio 0.4' in line for line in lines)
    build_trained(Config.fromfile(CONFIG), folder / 'k.pth')


BAD = [
    (('compact.py', DENSE, 'x.pth', '--out', 'b'), 'has no gates'),
    (('compact.py', OTHER, 'x.pth', '--out', 'b'), 'of another config'),
    (('compact.py', CONFIG, 'y.pth', '--out', 'b'), 'y.pth'),
    (
        ('compact.py', CONFIG, 'x.pth', '--out', 'b', '--images', '0'),
        '0 images',
    ),
    (('compact.py', CONFIG, 'x.pth', '--out', 'x.pth'), 'is a file'),
    (
        ('compact.py', CONFIG, 'x.pth', '--out', 'b', '--tolerance', '0.6'),
        'tolerance=0.6',
    ),
    (('onnx.py', DENSE, 'x.pth', '--out', 'b.onnx'), 'has no gates'),
    (('torch_export.py', OTHER, 'x.pth', '--out', 'b'), 'of another config'),
    (
        ('set_keep_ratio.py', CONFIG, '--keep-ratio', '2', '--out', 'b'),
        'keep ratio 2.0',
    ),
    (
        ('set_keep_ratio.py', DENSE, '--keep-ratio', '0.4', '--out', 'b'),
        'has no gates',
    ),
]


@pytest.mark.parametrize(('command', 'told'), BAD)
def test_bad_input_is_one_sentence(folder, command, told, monkeypatch, capfd):
    import importlib.util

    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, 'path', list(sys.path))
    file = EXPORT / command[0]
    spec = importlib.util.spec_from_file_location('tool_export', file)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    monkeypatch.setattr(sys, 'argv', [*map(str, command)])
    assert tool.command_line.run_tool(tool.main) == 2
    said = capfd.readouterr().err.splitlines()
    errors = [line for line in said if line.startswith('error: ')]
    assert len(errors) == 1 and told in errors[0]
    assert not (folder / 'b').exists() and not (folder / 'b.onnx').exists()


def test_an_empty_test_set_is_one_sentence(folder):
    (folder / 'empty').mkdir(exist_ok=True)
    done = run(
        folder, EXPORT / 'compact.py', CONFIG, 'x.pth', '--out', 'b',
        '--cfg-options', 'train_dataloader.dataset.indices=0',
    )  # fmt: skip
    assert done.returncode == 2, done.stdout
    assert 'error: ' in done.stderr and 'Traceback' not in done.stderr
