"""Gates that decide for groups of channels, made faster."""

import copy

import pytest
import torch
from mmpretrain.registry import MODELS
from torch import nn

import fgc_mm.deploy.dynamic.calibrate as calibration
from fgc_mm.deploy import (
    PlainForward,
    compact,
    firing_statistics,
    gathered,
    set_keep_ratio,
    to_dynamic,
)
from fgc_mm.deploy.export.check import largest_difference
from fgc_mm.deploy.export.onnx import (
    export_onnx,
    onnx_logits,
)
from fgc_mm.deploy.graph import program_of
from fgc_mm.deploy.timing.variants import same_width
from fgc_mm.gates import GroupedGate, PartialGate
from fgc_mm.runtime.format import Call

# four sites: two of 12 channels, two of 24
RESNET = dict(
    type='ResNet', depth=18, base_channels=12, stem_channels=12, num_stages=2,
    strides=(1, 2), dilations=(1, 1), out_indices=(1,),
)  # fmt: skip
SIZES = {12: (5, 5, 2), 24: (5, 5, 5, 5, 4)}
GATES = {
    'concrete': dict(type='fgc_mm.BinaryConcreteGate', group=5),
    'FBS': dict(type='fgc_mm.FBSGate', group=5),
    'ManiDP': dict(type='fgc_mm.ManiDPGate', group=5),
}


class TwoConvs(nn.Module):
    """One site; exporting takes seconds."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 12, 3)
        self.second = nn.Conv2d(12, 24, 3)

    def forward(self, x):
        return (self.second(self.first(x).relu()),)


def build(gate, **changes):
    backbone = dict(type='fgc_mm.GatedBackbone', backbone=RESNET, gate=gate)
    torch.manual_seed(0)
    model = MODELS.build(
        dict(
            type='fgc_mm.GatedImageClassifier',
            backbone=backbone | changes,
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=10, in_channels=24),
        )
    )
    return model.eval(), backbone


@torch.no_grad()
def stir(model):
    """Norms as after training; decisions that differ by image."""
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
    for gate in model.backbone.gates.values():
        linear = [m for m in gate.modules() if isinstance(m, nn.Linear)]
        for layer in linear:
            nn.init.normal_(layer.weight, std=1.0)
        nn.init.normal_(linear[-1].bias, std=0.3)
    nn.init.normal_(model.head.fc.weight)


@pytest.fixture(scope='module')
def concrete():
    """A model whose first groups never open, and whose last always do."""
    model, settings = build(GATES['concrete'])
    stir(model)
    for gate in model.backbone.gates.values():
        gate.gate.expand.bias.data[0] = -1000
        gate.gate.expand.bias.data[-1] = 1000
    return model, settings


@pytest.fixture
def every_site_skips(monkeypatch):
    monkeypatch.setattr(calibration, 'REPEATS', 1)
    monkeypatch.setattr(calibration, '_is_faster', lambda *_: True)


@pytest.mark.usefixtures('every_site_skips')
@pytest.mark.parametrize('backend', ['auto', 'torch'])
@pytest.mark.parametrize('kind', ['concrete', 'FBS', 'ManiDP'])
@torch.no_grad()
def test_dynamic_is_masked(kind, backend, concrete, pictures):
    model = concrete[0]
    if kind != 'concrete':
        model, _ = build(GATES[kind])
        stir(model)
    images = pictures(16, 4)
    dynamic = to_dynamic(model, images, backend=backend)
    assert dynamic.plan.executor == 'program'  # groups are no obstacle
    assert not dynamic.backbone.dense
    wanted, got = model(images), dynamic(images)
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)
    want = model.backbone.forward_gated(images)[1]
    for one, other in zip(want, dynamic.backbone.forward_gated(images)[1]):
        assert other.logits.shape == (4, len(SIZES[one.site.channels]))
        torch.testing.assert_close(other.logits, one.logits, atol=1e-3,
                                   rtol=1e-3)  # fmt: skip
        torch.testing.assert_close(other.mask, one.mask, atol=1e-3, rtol=1e-3)
    assert any(len(r.mask.unique(dim=0)) > 1 for r in want)


@pytest.mark.usefixtures('every_site_skips')
@pytest.mark.parametrize('group', [1, 5])
@pytest.mark.parametrize('kind', [
    'BinaryConcreteGate', 'FTWTGate', 'FBSGate', 'ManiDPGate', 'OpenGate',
])  # fmt: skip
@torch.no_grad()
def test_the_runtime_computes_every_gate(kind, group, pictures):
    # several of the channels that FBS closes are positive
    options = dict(density=0.2) if kind == 'FBSGate' else {}
    model, _ = build(dict(type=f'fgc_mm.{kind}', group=group, **options))
    if kind != 'OpenGate':
        stir(model)
    images = pictures(16, 4)
    program = program_of(model, images[:1])
    assert not [op for op in program.ops if isinstance(op, Call)]
    dynamic = to_dynamic(model, images, backend='torch')
    assert dynamic.plan.executor == 'program', dynamic.plan.executor_why
    for image in images.split(1):  # several may run together, and masked
        wanted = model.backbone.forward_gated(image)[1]
        found = dynamic.backbone.forward_gated(image)[1]
        for one, other in zip(wanted, found, strict=True):
            for got, want in (
                (other.logits, one.logits),
                (other.mask, one.mask),
            ):
                torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_compaction_removes_whole_groups(concrete, pictures):
    model, settings = concrete
    images = pictures(16)
    done = compact(model, firing_statistics(model, [images]), settings, images)
    for name, entry in done.channel_map.sites.items():
        channels = model.backbone.backbone.get_submodule(name).out_channels
        removed = {*range(channels)} - {*entry.kept}
        assert {*range(5)} <= removed and not entry.closed, name
    small, _ = build(
        GATES['concrete'], type='fgc_mm.CompactBackbone',
        channel_map=done.channel_map,
    )  # fmt: skip
    small.load_state_dict(done.state_dict)
    gates = [*small.backbone.gates.values()]
    assert all(type(gate) is GroupedGate for gate in gates)
    assert any(type(gate.gate) is PartialGate for gate in gates)
    torch.testing.assert_close(small(images), model(images))
    for gate, site in zip(gates, small.backbone.sites):
        assert sum(gate.sizes) == site.channels
        assert set(gate.sizes) <= {5, 4, 2, 1}  # the always open are alone


@torch.no_grad()
def test_a_compact_model_with_groups_trains_on(concrete, pictures):
    model, settings = concrete
    images = pictures(16)
    done = compact(model, firing_statistics(model, [images]), settings, images)
    small = done.backbone.train()
    with torch.enable_grad():
        records = small.forward_gated(images)[1]
        sum(r.mask.sum() + r.logits.sum() for r in records).backward()
    for name, gate in small.gates.items():
        assert all(p.grad is not None for p in gate.parameters()), name


@torch.no_grad()
def test_masks_in_onnx(pictures, tmp_path):
    model, _ = build(GATES['concrete'], backbone=TwoConvs())
    stir(model)
    images = pictures(8, 3)
    masks = [r.mask for r in model.backbone.forward_gated(images)[1]]
    assert len(masks[0].unique(dim=0)) > 1
    export_onnx(model, images[:2], tmp_path / 'masked.onnx')
    run = onnx_logits(tmp_path / 'masked.onnx')
    batches = [images[:1], images]
    assert largest_difference(PlainForward(model), run, batches) < 1e-4


@torch.no_grad()
def test_gathered_weights_are_those_of_open_groups(concrete, pictures):
    model, _ = concrete
    images = pictures(16, 3)
    small, plan = gathered(model, images[:1])
    assert set(plan.values()) == {'both'}
    got = torch.cat([PlainForward(small)(one) for one in images.split(1)])
    wanted = PlainForward(model)(images)
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('keep', [0.44, 0.7])
@torch.no_grad()
def test_a_keep_ratio_counts_channels(concrete, pictures, keep):
    model = copy.deepcopy(concrete[0])
    for gate in model.backbone.gates.values():
        gate.gate.expand.bias.zero_()
    images = pictures(16, 48)
    set_keep_ratio(model, images, keep)
    for record in model.backbone.forward_gated(images)[1]:
        assert record.mask.mean() == pytest.approx(keep, abs=0.02)
        assert len(record.mask.unique(dim=0)) > 2


@torch.no_grad()
def test_a_static_network_of_the_same_width_needs_no_groups(
    concrete, pictures
):
    model = concrete[0]
    firing = firing_statistics(model, [pictures(16)])
    sites = same_width(model, firing).sites
    for stats in firing:
        kept = len(sites[stats.site].kept)
        assert kept == round(float(stats.rate.sum()))
