"""Exported for one image, a masked model takes any number of images."""

import pytest
import torch
from mmpretrain.models.backbones.base_backbone import BaseBackbone
from torch import nn

from fgc_mm.deploy import PlainForward
from fgc_mm.deploy.export.check import largest_difference
from fgc_mm.deploy.export.onnx import (
    export_gathered_onnx,
    export_onnx,
    onnx_logits,
)
from fgc_mm.deploy.export.program import export_program
from fgc_mm.errors import FGCError
from fgc_mm.functional.topk_mask import topk_mask
from fgc_mm.gates import PartialGate
from fgc_mm.models import GatedBackbone
from fgc_mm.registry import MODELS

GATE = dict(type='fgc_mm.BinaryConcreteGate', hidden_channels=4)


class Joined(BaseBackbone):
    """Channels are concatenated, shuffled and flattened, as in GoogLeNet,
    ShuffleNetV2 and AlexNet."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.wide = nn.Conv2d(4, 4, 3, padding=1)
        self.deep = nn.Conv2d(4, 4, 1)
        self.shuffled = nn.Conv2d(8, 4, 1)
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.flattened = nn.Linear(16, 6)

    def forward(self, x):
        x = self.stem(x).relu()
        x = torch.cat([self.wide(x), self.deep(x)], dim=1).relu()
        pairs = x.reshape(x.shape[0], 2, 4, *x.shape[2:]).transpose(1, 2)
        x = self.shuffled(pairs.flatten(1, 2)).relu()
        return (self.flattened(self.pool(x).flatten(1)),)


class Head(nn.Module):
    """Gives the last feature."""

    def forward(self, feats):
        return feats[-1]


class Classifier(nn.Module):
    """The parts of a classifier that an exporter needs."""

    with_neck = False

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone
        self.head = Head()


def joined():
    torch.manual_seed(0)
    network = GatedBackbone(Joined(), GATE).eval()
    assert {m.path for s in network.sites for m in s.consumers
            if m.positions} >= {'shuffled', 'flattened'}  # fmt: skip
    for gate in network.gates.values():
        nn.init.normal_(gate.squeeze.weight, std=3)
        nn.init.normal_(gate.expand.bias, std=0.1)
    return network


@pytest.fixture(scope='module')
def model():
    return Classifier(joined())


def assert_any_batch_runs_in_onnx(model, images, file):
    """Exported for one image; the masks of the images differ."""
    export_onnx(model, images[:1], file)
    batches = [images[:1], images[:3], images]
    run = onnx_logits(file)
    assert largest_difference(PlainForward(model), run, batches) < 1e-5
    records = model.backbone.forward_gated(images)[1]
    masks = [record.mask != 0 for record in records]
    assert any(len(mask.unique(dim=0)) > 1 for mask in masks)


def test_onnx_for_one_image_takes_eight(model, pictures, tmp_path):
    assert_any_batch_runs_in_onnx(model, pictures(8), tmp_path / 'x.onnx')


def test_exported_program_for_one_image_takes_eight(model, pictures):
    images = pictures(8)
    run = export_program(model, images[:1]).module()
    assert largest_difference(PlainForward(model), run, [images]) < 1e-5


@pytest.mark.parametrize(
    'gate',
    [
        dict(type='fgc_mm.FTWTGate'),
        dict(type='fgc_mm.FBSGate', density=0.5),
        dict(type='fgc_mm.ManiDPGate', keep=0.5),
        PartialGate(None, 6, [], [0, 3]),
    ],
    ids=lambda gate: gate['type'] if isinstance(gate, dict) else 'Partial',
)
@torch.no_grad()
def test_gates_take_any_batch(gate):
    if isinstance(gate, dict):
        gate = MODELS.build(dict(gate, in_channels=4, out_channels=6))
    gate.eval()
    batch = torch.export.Dim('batch', min=1, max=64)
    exported = torch.export.export(
        gate, (torch.randn(2, 4, 3, 3),), dynamic_shapes=({0: batch},),
        strict=False,
    ).module()  # fmt: skip
    for count in (1, 5):
        maps = torch.randn(count, 4, 3, 3)
        torch.testing.assert_close(exported(maps).mask, gate(maps).mask)


@pytest.fixture(scope='module')
def fbs():
    """A model whose gates sort."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(),
        nn.Conv2d(8, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip
    gate = dict(type='fgc_mm.FBSGate', density=0.5)
    return Classifier(GatedBackbone(network, gate).eval())


def test_gates_that_sort_in_onnx(fbs, pictures, tmp_path):
    assert_any_batch_runs_in_onnx(fbs, pictures(8), tmp_path / 'x.onnx')


def test_gates_that_sort_in_gathered_onnx(fbs, pictures, tmp_path):
    images = pictures(8)
    plan = export_gathered_onnx(fbs, images, tmp_path / 'x.onnx')
    assert {*plan.values()} == {'both'}
    run = onnx_logits(tmp_path / 'x.onnx')
    batches = images.split(1)
    assert largest_difference(PlainForward(fbs), run, batches) < 1e-5


class Largest(nn.Module):
    """The mask of the largest numbers of an image, of which many are equal."""

    def forward(self, x):
        return (topk_mask((3 * x).round().flatten(1), 0.3).float(),)


def test_equals_in_onnx_are_taken_in_their_order(pictures, tmp_path):
    model, images = Classifier(Largest()), pictures(8)
    export_onnx(model, images[:1], tmp_path / 'x.onnx')
    run = onnx_logits(tmp_path / 'x.onnx')
    for batch in (images[:1], images):
        assert torch.equal(run(batch), PlainForward(model)(batch))


class Bessel(nn.Module):
    """An operation that torch.onnx does not have."""

    def forward(self, x):
        return (torch.special.bessel_j0(x).mean((2, 3)),)


def test_an_operation_that_onnx_lacks_is_one_sentence(pictures, tmp_path):
    with pytest.raises(FGCError, match='bessel') as error:
        export_onnx(Classifier(Bessel()), pictures(8)[:1], tmp_path / 'x.onnx')
    assert str(error.value).isprintable()


class FixesBatch(Joined):
    """Its code uses the number of images as a Python number."""

    def forward(self, x):
        (feature,) = super().forward(x)
        return (feature + torch.zeros(len(feature), 6),)


def test_code_that_fixes_the_batch_is_one_sentence(pictures, tmp_path):
    model = Classifier(FixesBatch())
    with pytest.raises(FGCError, match='number of images') as error:
        export_onnx(model, pictures(8)[:1], tmp_path / 'x.onnx')
    assert '\n' not in str(error.value)
    assert not list(tmp_path.iterdir())
