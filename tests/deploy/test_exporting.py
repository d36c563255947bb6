"""Exported files and torch have the same outputs."""

import sys

import pytest
import torch
from torch import nn

from fgc_mm.deploy import PlainForward, gathered
from fgc_mm.deploy.export.check import (
    check_same,
    largest_difference,
)
from fgc_mm.deploy.export.onnx import (
    export_gathered_onnx,
    export_onnx,
    onnx_logits,
)
from fgc_mm.deploy.export.program import export_program
from fgc_mm.errors import FGCError
from fgc_mm.models import GatedBackbone

# the kinds of blocks matter, not how often they come
TWO_STAGES = dict(
    num_stages=2, strides=(1, 2), dilations=(1, 1), out_indices=(1,)
)


@pytest.fixture(scope='module')
def model(classifier):
    """Four sites, one of them beside a shortcut with a conv; exporters take
    a second for each block."""
    return classifier(
        type='ResNet', depth=18, base_channels=16, stem_channels=16,
        **TWO_STAGES,
    )[0]  # fmt: skip


def test_plain_forward_is_the_model(model, pictures):
    images = pictures(16)
    with torch.no_grad():
        wanted = model(images, mode='tensor')
        assert wanted.shape == (8, 10)
        assert torch.equal(PlainForward(model)(images), wanted)


def test_exported_program_takes_any_batch(model, pictures):
    images = pictures(16)
    again = export_program(model, images[:2]).module()
    batches = [images[:1], images[:5], images.flip(3)]
    assert largest_difference(PlainForward(model), again, batches) < 1e-4


@pytest.fixture(scope='module')
def masked_file(model, pictures, tmp_path_factory):
    file = tmp_path_factory.mktemp('onnx') / 'masked.onnx'
    export_onnx(model, pictures(16)[:2], file)
    return file


def test_onnx_is_the_masked_model(model, masked_file, pictures):
    import onnx

    proto = onnx.load(masked_file)
    onnx.checker.check_model(proto)
    assert {i.domain: i.version for i in proto.opset_import}[''] == 18
    images = pictures(16)
    run = onnx_logits(masked_file)
    batches = [images[:1], images[:3], images]
    assert largest_difference(PlainForward(model), run, batches) < 1e-4
    assert [f.name for f in masked_file.parent.iterdir()] == ['masked.onnx']


@torch.no_grad()
def test_gathered_onnx_computes_open_channels(model, pictures, tmp_path):
    import onnx

    images = pictures(16)
    plan = export_gathered_onnx(model, images, tmp_path / 'g.onnx')
    assert set(plan.values()) == {'both'}
    nodes = onnx.load(tmp_path / 'g.onnx').graph.node
    kinds = [node.op_type for node in nodes]
    assert kinds.count('NonZero') == len(model.backbone.sites)
    assert kinds.count('Gather') >= 3 * len(model.backbone.sites)
    run = onnx_logits(tmp_path / 'g.onnx')
    batches = images.split(1)
    assert largest_difference(PlainForward(model), run, batches) < 1e-4
    # and the masks differ from image to image
    masks = [r.mask for r in model.backbone.forward_gated(images)[1]]
    assert any(len(mask.unique(dim=0)) > 1 for mask in masks)


@pytest.mark.parametrize(
    ('config', 'what'),
    [
        (
            dict(type='ResNet', depth=50, base_channels=8, **TWO_STAGES),
            {'both'},
        ),
        (
            dict(type='SEResNet', depth=50, base_channels=16, **TWO_STAGES),
            None,
        ),
        (
            dict(type='MobileNetV2', widen_factor=0.25),
            {'both', 'consumers'},
        ),
        (
            dict(type='ResNeXt', depth=50, groups=4, width_per_group=4)
            | TWO_STAGES,
            None,
        ),
    ],
    ids=lambda v: v['type'] if isinstance(v, dict) else '',
)
@torch.no_grad()
def test_gathering_on_other_networks(config, what, gated, pictures):
    network, _ = gated(config)
    images = pictures(64, 3)
    small, plan = gathered(network, images[:1])
    if what:
        assert set(plan.values()) == what
    for image in images.split(1):
        wanted, got = network(image)[-1], small(image)[-1]
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-3)


class ScaledByWidth(nn.Module):
    """Its second conv reads values that depend on the number of channels."""

    def __init__(self):
        super().__init__()
        self.stem, self.a, self.b = (
            nn.Conv2d(i, 8, 3, padding=1) for i in (3, 8, 8)
        )

    def forward(self, x):
        x = self.a(self.stem(x).relu()).relu()
        return (self.b(x / x.shape[1] ** 0.5),)


@torch.no_grad()
def test_gates_that_open_all_channels_of_the_images_hide_nothing(pictures):
    gate = dict(type='fgc_mm.BinaryConcreteGate')
    network = GatedBackbone(ScaledByWidth(), gate).eval()
    for module in network.gates.values():
        nn.init.constant_(module.expand.bias, 100)
    images = pictures(12)
    small, plan = gathered(network, images[:2])
    assert plan['a'] == 'consumers'
    for module in (*network.gates.values(), *small.gates.values()):
        module.expand.bias[::2] = -100
    torch.testing.assert_close(small(images[:1]), network(images[:1]))


class Normalised(nn.Module):
    """Its features are nan if all channels are closed."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3, padding=1)
        self.b = nn.Conv2d(8, 8, 3, padding=1, bias=False)

    def forward(self, x):
        x = self.b(self.a(x).relu())
        return (x / x.abs().sum((1, 2, 3), keepdim=True),)


@torch.no_grad()
def test_masks_with_which_the_network_itself_fails_are_not_compared(pictures):
    gate = dict(type='fgc_mm.BinaryConcreteGate')
    network = GatedBackbone(Normalised(), gate).eval()
    for module in network.gates.values():
        nn.init.constant_(module.expand.bias, 100)
    _, plan = gathered(network, pictures(12)[:1])
    assert plan == {'a': 'both'}


@pytest.mark.parametrize('opened', [(), (3,), (0,), (5, 6)])
@torch.no_grad()
def test_few_open_channels(classifier, opened, pictures):
    model, _ = classifier()
    for gate in model.backbone.gates.values():
        gate.expand.weight.zero_()
        gate.expand.bias.fill_(-1)
        gate.expand.bias[list(opened)] = 1
    image = pictures(16)[:1]
    small, _ = gathered(model, image)
    torch.testing.assert_close(
        PlainForward(small)(image), PlainForward(model)(image)
    )


@pytest.mark.parametrize('wrong', [float('nan'), float('inf')])
def test_logits_that_are_no_numbers_are_no_agreement(wrong):
    def own(images):
        return images

    def got(images):  # one of the second image
        return torch.where(images == 2, wrong, images)

    batches = [torch.tensor([[1.0, 1.0]]), torch.tensor([[1.0, 2.0]])]
    for first, second in ((own, got), (got, own)):
        gap = largest_difference(first, second, batches)
        with pytest.raises(FGCError, match=r'differ by'):
            check_same(gap, 'x.onnx')
    assert largest_difference(own, own, batches) == 0


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float64])
@pytest.mark.parametrize('export', [export_onnx, export_gathered_onnx])
def test_onnx_runtime_must_have_the_dtype(classifier, export, dtype, tmp_path):
    model = classifier()[0].to(dtype)
    images = torch.zeros(2, 3, 16, 16, dtype=dtype)
    with pytest.raises(FGCError, match=rf'{dtype}.*model\.float\(\)'):
        export(model, images, tmp_path / 'x.onnx')
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_gathering_needs_precise_weights(classifier, dtype):
    model = classifier()[0].to(dtype)
    images = torch.zeros(2, 3, 16, 16, dtype=dtype)
    with pytest.raises(FGCError, match=rf'{dtype}, whose rounding is larger'):
        gathered(model, images)


def test_images_of_another_dtype_are_named(classifier):
    model = classifier()[0].double()
    with pytest.raises(FGCError, match=r'^the images are torch\.float32'):
        export_program(model, torch.zeros(2, 3, 16, 16))


def test_bad_input_is_one_sentence(model, pictures, monkeypatch, tmp_path):
    images = pictures(16)
    with pytest.raises(FGCError, match='no gates'):
        gathered(nn.Linear(2, 2), images[:1])
    with pytest.raises(FGCError, match='no head'):
        PlainForward(nn.Linear(2, 2))
    with pytest.raises(FGCError, match='differ by'):
        check_same(float('nan'), 'x.onnx')
    for name in [n for n in sys.modules if n.partition('.')[0] == 'onnx']:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, 'onnx', None)
    with pytest.raises(FGCError, match='pip install onnx onnxscript') as error:
        export_onnx(model, images[:2], tmp_path / 'x.onnx')
    assert '\n' not in str(error.value)
