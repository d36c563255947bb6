"""tools/model_converters/fgc_pr.py on a checkpoint made as published."""

import pickle
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

import fgc_mm  # noqa: F401
from fgc_mm.engine.memory_bank_hook import STATE
from fgc_mm.registry import MODELS
from fgc_mm.reliability.checkpoint_reader import read_checkpoint

from .conftest import error_lines, load_tool, run

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / 'tools' / 'model_converters' / 'fgc_pr.py'
STAGES = ((16, 16), (16, 32), (32, 64))
COUPLED = ('layer3.1', 'layer3.2')


def norm(name, channels):
    return {
        f'{name}.weight': torch.rand(channels),
        f'{name}.bias': torch.rand(channels),
        f'{name}.running_mean': torch.rand(channels),
        f'{name}.running_var': torch.rand(channels) + 0.5,
        f'{name}.num_batches_tracked': torch.tensor(7),
    }


def block(name, inputs, channels):
    state = {
        f'{name}.conv1.weight': torch.randn(channels, inputs, 3, 3) / 9,
        f'{name}.conv2.weight': torch.randn(channels, channels, 3, 3) / 9,
        f'{name}.gate.mlp.fc1.weight': torch.randn(16, inputs, 1, 1),
        f'{name}.gate.mlp.fc2.weight': torch.randn(channels, 16, 1, 1),
        f'{name}.gate.mlp.fc2.bias': torch.randn(channels),
        **norm(f'{name}.bn1', channels),
        **norm(f'{name}.bn2', channels),
        **norm(f'{name}.gate.mlp.bn', 16),
    }
    if name in COUPLED:
        for bank in ('gate_mb', 'feat_mb'):
            state[f'{name}.gate.{bank}.memory'] = torch.rand(50, channels)
    return state


def published():
    """ResNet-20, with the keys and shapes of the published code."""
    torch.manual_seed(0)
    state = {'conv1.weight': torch.randn(16, 3, 3, 3), **norm('bn1', 16)}
    for stage, (inputs, channels) in enumerate(STAGES, start=1):
        for index in range(3):
            first = inputs if index == 0 else channels
            state |= block(f'layer{stage}.{index}', first, channels)
    state |= {'linear.weight': torch.randn(10, 64)}
    state |= {'linear.bias': torch.randn(10)}
    return dict(state_dict=state, epoch=400, best_acc1=92.1, optimizer={})


def naive_logits(state, x):
    """The published network's forward pass, in evaluation."""
    F = torch.nn.functional

    def bn(name, v):
        return F.batch_norm(
            v,
            state[f'{name}.running_mean'],
            state[f'{name}.running_var'],
            state[f'{name}.weight'],
            state[f'{name}.bias'],
        )

    def gate(name, v):
        v = F.conv2d(v.mean((2, 3), keepdim=True), state[f'{name}.fc1.weight'])
        v = F.relu(bn(f'{name}.bn', v))
        v = F.conv2d(v, state[f'{name}.fc2.weight'], state[f'{name}.fc2.bias'])
        return (v > 0).float()

    x = F.relu(bn('bn1', F.conv2d(x, state['conv1.weight'], padding=1)))
    for stage, (inputs, channels) in enumerate(STAGES, start=1):
        for index in range(3):
            name = f'layer{stage}.{index}'
            stride = 2 if stage > 1 and index == 0 else 1
            f = F.conv2d(x, state[f'{name}.conv1.weight'], None, stride, 1)
            f = F.relu(bn(f'{name}.bn1', f)) * gate(f'{name}.gate.mlp', x)
            f = F.conv2d(f, state[f'{name}.conv2.weight'], padding=1)
            if stride == 2:
                pad = (channels - inputs) // 2
                x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, pad, pad))
            x = F.relu(bn(f'{name}.bn2', f) + x)
    pooled = x.mean((2, 3))
    return F.linear(pooled, state['linear.weight'], state['linear.bias'])


def convert(folder, checkpoint):
    torch.save(checkpoint, folder / 'theirs.pth')
    target = folder / 'ours.pth'
    done = run([sys.executable, TOOL, 'theirs.pth', target], folder)
    return done, target


def our_model():
    cfg = Config.fromfile(ROOT / 'configs' / 'fgc_resnet20_cifar10.py')
    init_default_scope('mmpretrain')
    return MODELS.build(cfg.model).eval()


@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_a_converted_network_computes_what_the_published_one_did(
    tmp_path, prefix
):
    theirs = published()
    state = theirs['state_dict']
    renamed = {f'{prefix}{k}': v for k, v in state.items()}
    done, target = convert(tmp_path, dict(theirs, state_dict=renamed))
    assert done.returncode == 0, done.stdout
    model = our_model()
    model.load_state_dict(read_checkpoint(target)['state_dict'], strict=True)
    x = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(model(x), naive_logits(state, x))


def test_banks_are_converted_as_the_hook_saves_them(tmp_path):
    theirs = published()
    _, target = convert(tmp_path, theirs)
    banks = read_checkpoint(target)[STATE]['coupling']
    assert set(banks) == {f'{name}.conv1' for name in COUPLED}
    for name in COUPLED:
        for ours, bank in (('gate', 'gate_mb'), ('feature', 'feat_mb')):
            rows = theirs['state_dict'][f'{name}.gate.{bank}.memory']
            assert torch.equal(banks[f'{name}.conv1'][ours]['rows'], rows)


@pytest.mark.parametrize(
    ('change', 'told'),
    [
        (
            lambda c: c['state_dict'].update(x=torch.zeros(1)),
            "'x' is not a key",
        ),
        (lambda c: c.pop('state_dict'), 'no state_dict'),
        (
            lambda c: c['state_dict'].pop('layer3.1.gate.gate_mb.memory'),
            'only a feature bank',
        ),
    ],
)
def test_a_foreign_file_is_one_sentence_and_writes_nothing(
    tmp_path, change, told
):
    theirs = published()
    change(theirs)
    theirs['other'] = torch.zeros(1)
    done, target = convert(tmp_path, theirs)
    assert done.returncode != 0
    (line,) = error_lines(done.stdout)
    assert told in line
    assert not target.exists()


def test_a_failed_write_leaves_the_old_file(tmp_path):
    target = tmp_path / 'ours.pth'
    target.write_text('the old one')
    with pytest.raises((AttributeError, pickle.PicklingError)):
        load_tool('model_converters/fgc_pr').write(dict(a=lambda: 0), target)
    assert target.read_text() == 'the old one'
    assert list(tmp_path.iterdir()) == [target]
