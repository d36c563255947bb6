"""Sites are checked with constant masks, not with the gates' own."""

import copy

import pytest
import torch
from torch import nn

from fgc_mm.deploy import to_dynamic
from fgc_mm.deploy.changed_masks import MASK_PATTERNS, constant_masks
from fgc_mm.deploy.dynamic import calibrate
from fgc_mm.models import GatedBackbone
from fgc_mm.registry import MODELS

GATE = dict(type='fgc_mm.BinaryConcreteGate', hidden_channels=4)
BACKENDS = [
    'torch',
    pytest.param('kernel', marks=pytest.mark.needs_kernel),
]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Times do not matter here."""
    monkeypatch.setattr(calibrate, 'REPEATS', 1)
    monkeypatch.setattr(calibrate, '_is_faster', lambda *_: True)


class LayerScale(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.gamma = nn.Parameter(torch.rand(channels, 1, 1) + 0.5)

    def forward(self, x):
        return x * self.gamma


class Chain(nn.Module):
    """Two sites: one with something between, one without."""

    def __init__(self, between, **conv):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.conv1 = nn.Conv2d(6, 8, **conv)
        self.between = between
        self.conv2 = nn.Conv2d(8, 8, **conv)
        self.act = nn.ReLU()
        self.conv3 = nn.Conv2d(8, 5, 3, padding=1)

    def forward(self, x):
        x = self.between(self.conv1(self.stem(x)))
        return (self.conv3(self.act(self.conv2(x))),)


def classifier_of(backbone):
    """Its gates open every channel, whatever the images are."""
    wrapped = GatedBackbone(backbone, GATE, sites=['conv1', 'conv2']).eval()
    for gate in wrapped.gates.values():
        nn.init.zeros_(gate.expand.weight)
        nn.init.constant_(gate.expand.bias, 9)
    return MODELS.build(
        dict(
            type='fgc_mm.GatedImageClassifier',
            backbone=wrapped,
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=4, in_channels=5),
        )
    ).eval()


def with_other_gates(state):
    """Weights of gates that open different channels per image."""
    generator = torch.Generator().manual_seed(4)
    for key, values in state.items():
        if 'gates' in key and 'expand' in key:
            values.normal_(0, 2, generator=generator)
    return state


@torch.no_grad()
def assert_same(model, dynamic, sizes):
    """With other gates and masks than at the calibration."""
    state = with_other_gates(copy.deepcopy(model.state_dict()))
    model = copy.deepcopy(model)
    model.load_state_dict(state)
    dynamic.load_state_dict(state)
    for size in sizes:
        images = torch.randn(2, 3, *size)
        for batch in ('loop', 'batch'):
            dynamic.backbone.batch = batch
            torch.testing.assert_close(
                dynamic(images), model(images), atol=1e-4, rtol=1e-4
            )


BETWEEN = {
    'PReLU': lambda: nn.PReLU(8),
    'layer scale': lambda: LayerScale(8),
    'GroupNorm': lambda: nn.GroupNorm(8, 8),
    'InstanceNorm': lambda: nn.InstanceNorm2d(8, affine=True),
}


# which compute a channel from itself alone
CHANNELWISE = ('PReLU', 'layer scale')


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('name', BETWEEN)
def test_layers_that_depend_on_the_number_of_channels(name, backend):
    """Though every calibration image opens every channel."""
    torch.manual_seed(0)
    model = classifier_of(Chain(BETWEEN[name](), kernel_size=3, padding=1))
    dynamic = to_dynamic(model, torch.randn(2, 3, 12, 12), backend=backend)
    sites = dynamic.dynamic_report()['sites']
    if name in CHANNELWISE:
        assert sites['conv1']['executed'] == 'dynamic'
    else:
        assert sites['conv1']['executed'] == 'dense'
        assert 'reads all channels' in sites['conv1']['why']
    assert sites['conv2']['executed'] == 'dynamic'
    assert_same(model, dynamic, [(12, 12), (9, 14)])


@pytest.mark.parametrize('backend', BACKENDS)
def test_images_of_a_batch_that_need_each_other_run_together(backend):
    """A norm by the batch's statistics: one by one they mean another."""
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(8, track_running_stats=False)
    model = classifier_of(Chain(norm, kernel_size=3, padding=1))
    dynamic = to_dynamic(model, torch.randn(2, 3, 12, 12), backend=backend)
    sites = dynamic.dynamic_report()['sites']
    assert {s['executed'] for s in sites.values()} == {'dense'}
    assert_same(model, dynamic, [(12, 12)])


PADDINGS = {
    'same': dict(kernel_size=3, padding='same'),
    'same, one more behind': dict(kernel_size=4, padding='same'),
    'same, dilated': dict(kernel_size=(2, 3), padding='same', dilation=2),
    'valid': dict(kernel_size=(3, 2), padding='valid'),
    'reflect': dict(kernel_size=3, padding=(1, 2), padding_mode='reflect'),
    'circular': dict(kernel_size=3, padding=2, padding_mode='circular'),
    'replicate': dict(
        kernel_size=4, padding='same', padding_mode='replicate'
    ),
    'reflect, strided': dict(
        kernel_size=3, padding=1, stride=2, padding_mode='reflect'
    ),
}  # fmt: skip


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('name', PADDINGS)
def test_paddings_are_those_of_the_conv(name, backend):
    """With lists of channels on both sides, one channel, and none."""
    torch.manual_seed(0)
    model = classifier_of(Chain(nn.ReLU(), **PADDINGS[name]))
    dynamic = to_dynamic(model, torch.randn(1, 3, 18, 18), backend=backend)
    assert_same(model, dynamic, [(18, 18), (16, 21)])
    report = dynamic.dynamic_report()
    executed = {s['executed'] for s in report['sites'].values()}
    if name == 'circular':  # it is padded by changes in place
        assert executed == {'dense'}
        assert 'in place' in report['executor_why']
        return
    assert executed == {'dynamic'}, report
    program = dynamic.backbone.program(torch.randn(1, 3, 18, 18))
    if backend == 'kernel':  # torch pads with what is no zero
        assert bool(program.fallbacks) == ('padding_mode' in PADDINGS[name])


@pytest.mark.parametrize('opened', MASK_PATTERNS.values(), ids=MASK_PATTERNS)
def test_constant_masks_open_the_given_channels(opened):
    torch.manual_seed(0)
    model = classifier_of(Chain(nn.ReLU(), kernel_size=3, padding=1))
    images = torch.randn(2, 3, 12, 12)
    with constant_masks(model.backbone, opened):
        _, records = model.backbone.forward_gated(images)
    for number, record in enumerate(records):
        opens = opened(8, number).float()
        assert torch.equal(record.mask, opens.expand(2, 8))
    _, records = model.backbone.forward_gated(images)
    assert all(record.mask.all() for record in records)
