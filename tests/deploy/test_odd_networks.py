"""Networks and gates that a program must get right, or leave alone."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from fgc_mm.deploy import to_dynamic
from fgc_mm.deploy.dynamic import calibrate
from fgc_mm.deploy.graph.network import program_of
from fgc_mm.gates import GateDecision
from fgc_mm.models import GatedBackbone
from fgc_mm.registry import MODELS


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Times do not matter here."""
    monkeypatch.setattr(calibrate, 'REPEATS', 1)
    monkeypatch.setattr(calibrate, '_is_faster', lambda *_: True)


class Net(nn.Module):
    """Two sites; something odd behind the stem, and at the end."""

    def __init__(self, odd):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.conv1 = nn.Conv2d(6, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.conv3 = nn.Conv2d(8, 5, 3, padding=1)
        self.odd = odd
        self.register_buffer('last', torch.zeros(6))

    def forward(self, x):
        x = self.odd(self, self.stem(x))
        x = self.conv2(self.conv1(x).relu()).relu()
        return (self.conv3(x),)


def model_of(odd=lambda net, x: x, gate='fgc_mm.BinaryConcreteGate'):
    torch.manual_seed(0)
    wrapped = GatedBackbone(
        Net(odd), dict(type=gate), sites=dict(type='auto', image_size=12)
    )
    for gate in wrapped.gates.values():
        for layer in gate.modules():
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight)
                if layer.bias is not None:
                    nn.init.normal_(layer.bias)
    return MODELS.build(
        dict(
            type='fgc_mm.GatedImageClassifier',
            backbone=wrapped.eval(),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=4, in_channels=5),
        )
    ).eval()


@pytest.fixture(scope='module')
def images():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(8, 3, 12, 12, generator=generator)


@torch.no_grad()
def assert_same(model, dynamic, images):
    dynamic.backbone.batch = 'loop'
    want = torch.cat([model(image) for image in images.split(1)])
    got = torch.cat([dynamic(image) for image in images.split(1)])
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


def unpooled(_, x):
    y, where = F.max_pool2d(x, 2, return_indices=True)
    return F.max_unpool2d(y, where, 2)


def rows_and_columns(_, x):
    n, c, h, w = x.shape
    x = x.view(n, c, 2, h // 2, 2, w // 2).permute(0, 1, 3, 2, 5, 4)
    return x.reshape(n, c, h, w)


def attended(net, x):
    if not hasattr(net, 'block'):
        torch.manual_seed(1)
        net.block = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True)
        net.block.eval()
    return net.block(x.flatten(2).mT).mT.reshape(x.shape)


def scripted(net, x):
    if not hasattr(net, 'script'):
        net.script = torch.jit.script(nn.ReLU())
    return net.script(x)


def noted(net, x):
    net.last.copy_(x.detach().mean((0, 2, 3)))
    return x


ODD = {
    'indices of a pool': unpooled,
    'positions are shuffled': rows_and_columns,
    'a boolean index': lambda _, x: x + x[x > 0.1].mean(),
    'a boolean mask': lambda _, x: x * (x > 0).bool().float(),
    'zeros are false': lambda _, x: x + x.relu().bool().float(),
    'three dimensions': lambda _, x: x + F.avg_pool2d(x.mean(1), 3, 1, 1)[0],
    'a mean of all': lambda _, x: x - x.mean(dim=None, keepdim=True),
    'bfloat16': lambda _, x: (x.bfloat16() * 1.2345).float(),
    'python floats': lambda _, x: x * x.mean((1, 2, 3)).tolist()[0],
    'numpy': lambda _, x: x * 2 if x.detach().numpy().mean() > 0 else x,
    'a transformer layer': attended,
    'a scripted module': scripted,
    'a buffer': noted,
    'checkpointing': lambda net, x: checkpoint(
        net.conv1, x, use_reentrant=False
    )[:, :6],
}


@pytest.mark.parametrize('backend', ['auto', 'torch'])
@pytest.mark.parametrize('name', ODD)
def test_odd_networks(name, backend, images):
    """Images not in the calibration, some of another branch."""
    model = model_of(ODD[name])
    dynamic = to_dynamic(model, images[:1], backend=backend)
    assert_same(model, dynamic, images)


def times(number_of):
    return lambda _, x: x * (1 + number_of(x))


# numbers in Python that depend on values
VALUES = {
    'allclose': times(lambda x: torch.allclose(x, x.clamp(-4, 4))),
    'equal': times(lambda x: torch.equal(x, x.clamp(-4, 4))),
    'item': times(lambda x: int(x.max() > 4)),
    'bincount': times(
        lambda x: torch.bincount((x > 4).flatten().long()).numel()
    ),
    'repeat_interleave': times(
        lambda x: torch.repeat_interleave((x > 4).flatten().long()).numel()
    ),
    'masked_select': times(lambda x: x.masked_select(x > 4).numel()),
    'a boolean index': times(lambda x: len(x[x > 4])),
    'unique': times(lambda x: (x > 4).unique().numel()),
    'sparse': times(lambda x: (x * (x > 4)).to_sparse().values().numel()),
    'dlpack': times(lambda x: int(np.from_dlpack(x.detach()).max() > 4)),
}


@pytest.mark.parametrize('name', VALUES)
def test_code_that_depends_on_values_is_no_program(name, images):
    model = model_of(VALUES[name])
    dynamic = to_dynamic(model, images[:1], backend='torch')
    assert dynamic.plan.executor == 'modules'
    assert 'values of images' in dynamic.plan.executor_why
    assert_same(model, dynamic, torch.cat([images, 9 * images]))


# an image of the batch changes another one, but only some images do
MIXED = {
    'a maximum': lambda _, x: torch.where(x.max() > 4, 3 * x, x),
    'a maximum that is exceeded': lambda _, x: torch.where(
        x.max() > 0.1, 3 * x, x
    ),
    'a minimum': lambda _, x: torch.where(x.min() < -4, 3 * x, x),
    'a count': lambda _, x: x * (1 + (x > 4).count_nonzero().clamp(max=1)),
    'the image before': lambda _, x: torch.where(x.roll(1, 0) > 4, 3 * x, x),
    'all images before': lambda _, x: torch.where(
        x.cummax(0)[0] > 4, 3 * x, x
    ),
}


@pytest.mark.parametrize('name', MIXED)
def test_images_that_depend_on_each_other_are_no_program(name, images):
    dynamic = to_dynamic(model_of(MIXED[name]), images[:1], backend='torch')
    assert dynamic.plan.executor == 'modules'
    assert 'depend on each other' in dynamic.plan.executor_why


@torch.no_grad()
def test_code_that_changes_a_buffer_is_no_program(images):
    """A program would not, and a change makes all programs again."""

    def counted(net, x):
        net.last += 1
        return x

    dynamic = to_dynamic(model_of(counted), images[:1], backend='torch')
    assert 'changes the buffer backbone.last' in dynamic.plan.executor_why
    before = dynamic.backbone.backbone.last.clone()
    dynamic(images[:1])
    assert torch.equal(dynamic.backbone.backbone.last, before + 1)


def test_a_new_tensor_depends_on_no_image(images):
    model = model_of(lambda _, x: x + x.new_empty(6, 1, 1).fill_(2))
    dynamic = to_dynamic(model, images[:1], backend='torch')
    assert dynamic.plan.executor == 'program', dynamic.plan.executor_why
    assert_same(model, dynamic, images)


def test_code_that_depends_on_strides_is_no_program(images):
    """A program would keep the strides of the first image."""
    model = model_of(lambda _, x: x.as_strided(x.shape, x.stride()))
    dynamic = to_dynamic(model, images[:1], backend='torch')
    assert 'strides' in dynamic.plan.executor_why
    for layout in (torch.contiguous_format, torch.channels_last):
        assert_same(model, dynamic, images.to(memory_format=layout))


@pytest.mark.parametrize('backend', ['auto', 'torch'])
@pytest.mark.parametrize('what', ['model', 'images', 'both'])
def test_channels_last_is_a_program(what, backend, images):
    """torch's pools of such maps change strides in place."""
    model = model_of(lambda _, x: x * F.adaptive_avg_pool2d(x, 1))
    if what != 'images':
        model = model.to(memory_format=torch.channels_last)
    if what != 'model':
        images = images.to(memory_format=torch.channels_last)
    assert program_of(model, images[:1]).ops
    dynamic = to_dynamic(model, images[:2], backend=backend)
    assert dynamic.program(images[:1]) is not None
    assert_same(model, dynamic, images)


def test_strides_changed_in_place_are_no_program(images):
    model = model_of(
        lambda _, x: x.clone().as_strided_(x.mT.shape, x.mT.stride())
    )
    dynamic = to_dynamic(model, images[:1], backend='torch')
    assert 'strides' in dynamic.plan.executor_why
    assert_same(model, dynamic, images)


class Smallest(nn.Module):
    """Opens those of the smallest logits, or every other of an order."""

    def __init__(self, in_channels, out_channels, kind='smallest'):
        super().__init__()
        self.linear = nn.Linear(in_channels, out_channels)
        self.kind = kind

    def forward(self, x):
        logits = self.linear(x.mean((2, 3)))
        half = logits.shape[1] // 2
        largest = self.kind != 'smallest'
        order = logits.argsort(dim=1, descending=largest, stable=True)
        chosen = order[:, : half * 2 : 2] if largest else order[:, :half]
        if self.kind == 'weighted':
            weights = torch.full_like(logits, 0.5)
            mask = torch.zeros_like(logits).scatter(
                1, order[:, :half], weights
            )
        else:
            mask = torch.zeros_like(logits).scatter(1, chosen, 1.0)
        return GateDecision(logits, logits.sigmoid(), mask)


@pytest.mark.parametrize('kind', ['smallest', 'every other', 'weighted'])
@torch.no_grad()
def test_gates_that_look_like_the_k_largest(kind, images):
    class Gate(Smallest):
        def __init__(self, in_channels, out_channels):
            super().__init__(in_channels, out_channels, kind)

    MODELS.register_module('SmallestTestGate', module=Gate, force=True)
    model = model_of(gate='fgc_mm.SmallestTestGate')
    dynamic = to_dynamic(model, images)
    assert_same(model, dynamic, images)
    want = model.backbone.forward_gated(images[:1])[1]
    got = dynamic.backbone.forward_gated(images[:1])[1]
    assert all(torch.equal(a.mask, b.mask) for a, b in zip(want, got))


def test_weights_of_a_part_are_loaded(images):
    model = model_of()
    dynamic = to_dynamic(model, images[:1])
    other = model_of()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.5)
    for part in ('head', 'backbone.gates', 'backbone.backbone.conv3'):
        state = other.get_submodule(part).state_dict()
        model.get_submodule(part).load_state_dict(state)
        dynamic.get_submodule(part).load_state_dict(state)
        assert_same(model, dynamic, images)


def test_autocast_changes_no_program(images):
    model = model_of()
    dynamic = to_dynamic(model, images[:1], backend='torch')
    other = torch.randn(2, 3, 9, 14)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        dynamic(other)
    assert dynamic.backbone.program_of(other) is not None
    assert_same(model, dynamic, other)
