"""Gated networks whose gates decide for groups of channels."""

import pytest
import torch
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import nn

from fgc_mm.engine.loss_progress_hook import set_progress
from fgc_mm.errors import FGCError
from fgc_mm.functional.macs import macs_per_image
from fgc_mm.functional.schedule import Progress

MACS = dict(type='fgc_mm.MACsTargetLoss', pruning_ratio=0.3)
LOSSES = {
    'BinaryConcreteGate': [
        dict(type='fgc_mm.L0Loss'),
        dict(type='fgc_mm.BatchShapingLoss'),
        MACS,
    ],
    'FTWTGate': [dict(type='fgc_mm.MaskPredictionLoss', ratio=0.8), MACS],
    'FBSGate': [dict(type='fgc_mm.SaliencyL1Loss'), MACS],
    'ManiDPGate': [dict(type='fgc_mm.GramSimilarityLoss'), MACS],
}


class Chain(nn.Module):
    """Three convs; the channels of the first two are sites."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 20, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(20)
        self.third = nn.Conv2d(20, 12, 3)

    def forward(self, x):
        x = self.second(self.first(x).relu())
        return (self.third(self.norm(x).relu()),)


WIDTHS = {'first': 8, 'second': 20}


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(2)
    return 2 * torch.randn(6, 3, 8, 8, generator=generator)


def classifier(gate, losses=(), **options):
    torch.manual_seed(0)
    return MODELS.build(
        dict(
            type='fgc_mm.GatedImageClassifier',
            backbone=dict(
                type='fgc_mm.GatedBackbone', backbone=Chain(),
                gate=dict(type=f'fgc_mm.{gate}', **options),
            ),
            gate_losses=losses,
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=10, in_channels=12),
        )
    )  # fmt: skip


def samples(count):
    return [DataSample().set_gt_label(i % 10) for i in range(count)]


@pytest.mark.parametrize('gate', LOSSES)
def test_a_trained_step_reaches_every_gate(gate, images):
    model = classifier(gate, LOSSES[gate], group=4).train()
    set_progress(model, Progress(0, 0))
    losses = model.loss(images, samples(6))
    sum(v for k, v in losses.items() if 'loss' in k).backward()
    assert all(p.grad is not None for p in model.parameters())
    for name, own in model.backbone.gates.items():
        assert any(p.grad.any() for p in own.parameters()), name


def test_a_site_has_the_group_sizes_of_its_gate(images):
    backbone = classifier('BinaryConcreteGate', group=12).backbone
    sizes = {site.channels: site.group_sizes for site in backbone.sites}
    assert sizes == {8: (8,), 20: (12, 8)}
    assert ' 20 in 2 groups ' in backbone.describe()
    assert all(site.group_sizes is None for site in backbone.found.sites)
    for record in backbone.eval().forward_gated(images)[1]:
        decisions = record.site.decisions
        assert record.logits.shape == record.probs.shape == (6, decisions)
        assert record.mask.shape == (6, record.site.channels)


def test_open_groups_are_the_dense_network_bit_for_bit(images):
    model = classifier('BinaryConcreteGate', group=8, init_bias=40.0).eval()
    gated, dense = model.backbone, model.backbone.backbone
    for got, want in zip(gated(images), dense(images)):
        assert torch.equal(got, want)


def test_a_group_as_wide_as_a_site_closes_it_whole(images):
    backbone = classifier('FTWTGate', group=64).eval().backbone
    for gate in backbone.gates.values():
        nn.init.normal_(gate.gate.predict.weight, std=50)
    for record in backbone.forward_gated(images)[1]:
        assert record.logits.shape == (6, 1)
        opened = record.mask.sum(dim=1)
        assert ((opened == 0) | (opened == record.site.channels)).all()


def test_channels_of_closed_groups_have_no_influence(images):
    backbone = classifier('BinaryConcreteGate', group=3).eval().backbone
    _vary(backbone)
    want, records = backbone.forward_gated(images[:1])
    closed = {r.site.producer: r.mask[0] == 0 for r in records}
    assert any(c.any() for c in closed.values())
    hooks = [
        backbone.backbone.get_submodule(path).register_forward_hook(
            lambda _, __, out, c=c: out.masked_fill(c[None, :, None, None], 9)
        )
        for path, c in closed.items()
    ]
    got = backbone(images[:1])
    for hook in hooks:
        hook.remove()
    assert torch.equal(want[0], got[0])


def test_macs_are_those_of_a_loop_over_channels(images):
    model = classifier('BinaryConcreteGate', group=3).eval()
    _vary(model.backbone)
    table = model.macs_table((3, 8, 8))
    records = model.backbone.forward_gated(images)[1]
    got = macs_per_image(table, [r.mask for r in records])
    first, second = [(r.mask != 0).sum(dim=1).double() for r in records]
    linear = [m for m in model.modules() if isinstance(m, nn.Linear)]
    want = sum(layer.weight.numel() for layer in linear) + 9 * (
        64 * 3 * first + 64 * first * second + 36 * second * 12
    )
    assert torch.equal(got, want)
    assert got.unique().numel() > 1


def test_gates_of_groups_cost_fewer_macs():
    gates = [
        classifier('BinaryConcreteGate', group=group)
        .macs_table((3, 8, 8))
        .gates
        for group in (1, 8)
    ]
    hidden, decisions = 16, [1, 3]
    saved = sum(WIDTHS.values()) - sum(decisions)
    assert gates[0] - gates[1] == hidden * saved


def test_a_group_of_one_is_the_network_of_before(images):
    plain = classifier('BinaryConcreteGate').backbone
    single = classifier('BinaryConcreteGate', group=1).backbone
    assert plain.state_dict().keys() == single.state_dict().keys()
    for seed, mode in enumerate((True, False)):
        answers = []
        for backbone in (plain.train(mode), single.train(mode)):
            torch.manual_seed(seed)
            answers.append(backbone.forward_gated(images))
        assert torch.equal(answers[0][0][0], answers[1][0][0])
        for one, other in zip(answers[0][1], answers[1][1]):
            assert torch.equal(one.logits, other.logits)
            assert one.site == other.site


def test_a_checkpoint_of_groups_comes_back(images):
    model = classifier('BinaryConcreteGate', group=8).eval()
    _vary(model.backbone)
    loaded = classifier('BinaryConcreteGate', group=8).eval()
    loaded.load_state_dict(model.state_dict())
    assert torch.equal(model.backbone(images)[0], loaded.backbone(images)[0])


@pytest.mark.parametrize(
    ('trained', 'loading'), [(1, 8), (8, 1), (4, 8), (8, 4)]
)
def test_gates_of_other_groups_are_refused(trained, loading):
    state = classifier('BinaryConcreteGate', group=trained).state_dict()
    model = classifier('BinaryConcreteGate', group=loading)
    words = r"gate of first does not match this model's .* group; give the"
    with pytest.raises(FGCError, match=words):
        model.load_state_dict(state, strict=False)
    plain = {k: v for k, v in state.items() if '.gates.' not in k}
    model.load_state_dict(plain, strict=False)


def test_gates_of_another_kind_are_refused():
    state = classifier('FTWTGate').state_dict()
    with pytest.raises(FGCError, match=r'squeeze.weight of shape .* none'):
        classifier('BinaryConcreteGate').load_state_dict(state, strict=False)


def _vary(backbone):
    """Decisions that differ by image."""
    torch.manual_seed(1)
    for gate in backbone.gates.values():
        nn.init.normal_(gate.gate.squeeze.weight, std=3)
        nn.init.normal_(gate.gate.expand.weight)
