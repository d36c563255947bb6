"""tools/export: from a trained config to other files."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope
from mmengine.visualization import Visualizer
from torch import nn

from fgc_mm.cli.run_tool import run_tool
from fgc_mm.deploy import PlainForward, build_model, build_trained

from .conftest import main_of

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / 'configs' / 'bas_resnet20_digits.py'
DENSE = ROOT / 'configs' / 'dense_resnet20_digits.py'
# exporters take a second for each block: here are two
SMALL = f"""
_base_ = [{str(CONFIG)!r}]
model = dict(
    backbone=dict(
        backbone=dict(
            _delete_=True, type='ResNet', depth=18, base_channels=8,
            stem_channels=8, num_stages=1, strides=(1,), dilations=(1,),
            out_indices=(0,))),
    head=dict(in_channels=8))
"""
OTHER = ROOT / 'configs' / 'bas_resnet20_cifar100.py'
EXPORT = ROOT / 'tools' / 'export'


def run(folder, *command):
    return subprocess.run(
        [sys.executable, '-W', 'ignore', *map(str, command)],
        cwd=folder, text=True, capture_output=True, timeout=300,
    )  # fmt: skip


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """With the checkpoints of two models whose gates do all there is to do:
    x.pth of CONFIG, s.pth of small.py."""
    folder = tmp_path_factory.mktemp('export')
    (folder / 'small.py').write_text(SMALL)
    for config, name in ((CONFIG, 'x.pth'), (folder / 'small.py', 's.pth')):
        torch.manual_seed(0)
        model = build_model(Config.fromfile(config))
        for gate in model.backbone.gates.values():
            nn.init.normal_(gate.squeeze.weight)
            draw = torch.rand(gate.expand.bias.shape)
            gate.expand.bias.data[draw < 0.3] -= 100
            gate.expand.bias.data[draw > 0.8] += 100
        state = model.state_dict()
        torch.save(dict(state_dict=state, meta={}), folder / name)
    return folder


@pytest.fixture
def call(folder, monkeypatch, capfd):
    """Runs a tool in this process (seconds less): code, stdout, stderr."""

    def called(file, *arguments):
        monkeypatch.chdir(folder)
        monkeypatch.setenv('LOCAL_RANK', '0')
        # names of a Runner's globals are given by the second
        for manager in (DefaultScope, MessageHub, MMLogger, Visualizer):
            manager._instance_dict.clear()
        monkeypatch.setattr(sys, 'argv', [*map(str, (file, *arguments))])
        code = run_tool(main_of(file.stem))
        return code, *capfd.readouterr()

    return called


def test_compact_can_be_moved_and_tested(folder, call):
    code, out, err = call(
        EXPORT / 'compact.py', CONFIG, 'x.pth', '--out', 'first',
        '--images', '2000', '--split', 'test', '--test',
    )  # fmt: skip
    assert code == 0, err
    assert 'on the test set' in out
    (row,) = re.findall(r'macs/mean +. +([\d,]+) +. +([\d,]+) ', out)
    before, after = (int(number.replace(',', '')) for number in row)
    assert after < before
    (folder / 'first').rename(folder / 'second')
    code, _, err = call(
        ROOT / 'tools' / 'test.py', 'second/config.py',
        'second/model.pth', '--out', 'm.json', '--out-item', 'metrics',
    )  # fmt: skip
    assert code == 0, err
    small = json.loads((folder / 'm.json').read_text())
    code, _, err = call(
        ROOT / 'tools' / 'test.py', CONFIG, 'x.pth',
        '--out', 'w.json', '--out-item', 'metrics',
    )  # fmt: skip
    assert code == 0, err
    whole = json.loads((folder / 'w.json').read_text())
    # counted on the test set itself: not one prediction may change
    assert small['accuracy/top1'] == whole['accuracy/top1']
    assert small['macs/mean'] <= whole['macs/mean']
    # the base stays the network that was compacted
    assert small['macs/dense'] == whole['macs/dense']
    assert small['macs/pruning_ratio'] >= whole['macs/pruning_ratio']
    cfg = Config.fromfile(folder / 'second' / 'config.py')
    build_trained(cfg, folder / 'second' / 'model.pth')


def test_torch_export_needs_nothing_of_ours(folder, call):
    code, _, err = call(
        EXPORT / 'torch_export.py', 'small.py', 's.pth', '--out', 'x.pt2',
        '--images', '4',
    )  # fmt: skip
    assert code == 0, err
    code = (
        'import sys, torch; f = torch.export.load("x.pt2").module(); '
        'print(f(torch.zeros(5, 3, 8, 8)).shape, '
        'any(n in sys.modules for n in ("fgc_mm", "mmpretrain", "mmengine")))'
    )
    assert 'torch.Size([5, 10]) False' in run(folder, '-c', code).stdout


def test_onnx_as_a_process(folder):
    """The folder of the tool, whose onnx.py is not the package, is left."""
    done = run(
        folder, EXPORT / 'onnx.py', 'small.py', 's.pth', '--out', 'x.onnx',
        '--images', '4',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert 'logits of 4 images of 3x8x8 differ by' in done.stdout
    check_onnx(folder)


def test_dynamic_onnx(folder, call):
    code, out, err = call(
        EXPORT / 'onnx.py', 'small.py', 's.pth', '--out', 'x.onnx',
        '--images', '4', '--dynamic',
    )  # fmt: skip
    assert code == 0, err
    assert 'logits of 4 images of 3x8x8 differ by' in out
    check_onnx(folder)


def check_onnx(folder):
    """Its logits are those of torch."""
    import onnxruntime

    session = onnxruntime.InferenceSession(
        folder / 'x.onnx', providers=['CPUExecutionProvider']
    )
    config = Config.fromfile(folder / 'small.py')
    model = build_trained(config, folder / 's.pth')
    image = torch.randn(1, 3, 8, 8)
    (got,) = session.run(None, {'images': image.numpy()})
    with torch.no_grad():
        wanted = PlainForward(model)(image)
    torch.testing.assert_close(torch.from_numpy(got), wanted)


def test_keep_ratio_without_training(folder, call):
    code, out, err = call(
        EXPORT / 'set_keep_ratio.py', CONFIG, '--keep-ratio', '0.44',
        '--out', 'k.pth', '--images', '64',
    )  # fmt: skip
    assert code == 0, err
    lines = [x for x in out.splitlines() if 'keep ratio' in x]
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
def test_bad_input_is_one_sentence(folder, command, told, call):
    code, _, err = call(EXPORT / command[0], *command[1:])
    assert code == 2
    errors = [x for x in err.splitlines() if x.startswith('error: ')]
    assert len(errors) == 1 and told in errors[0]
    assert not (folder / 'b').exists() and not (folder / 'b.onnx').exists()


def test_an_empty_test_set_is_one_sentence(folder, call):
    (folder / 'empty').mkdir(exist_ok=True)
    code, out, err = call(
        EXPORT / 'compact.py', CONFIG, 'x.pth', '--out', 'b',
        '--cfg-options', 'train_dataloader.dataset.indices=0',
    )  # fmt: skip
    assert code == 2, out
    assert 'error: ' in err and 'Traceback' not in err
