"""A gate for some channels: every channel is its gate's, or is fixed."""

import pytest
import torch
from torch import nn

from fgc_mm.gates import BinaryConcreteGate, FBSGate, PartialGate
from fgc_mm.gates.decision import GateDecision, ScalingDecision
from fgc_mm.gates.partial import FIXED_LOGITS

CHANNELS = 9
GATED = [7, 0, 4]  # in any order
CLOSED = [2, 8]
OPEN = [1, 3, 5, 6]
FIXED = {'logits': (-20, 20), 'probs': (0, 1), 'mask': (0, 1),
         'saliency': (0, 1)}  # fmt: skip


@pytest.fixture
def maps():
    return torch.randn(7, 6, 4, 5, generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=[BinaryConcreteGate, FBSGate])
def inner(request):
    torch.manual_seed(0)
    gate = request.param(6, len(GATED))
    for module in gate.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=2)
    return gate


def naive(decision, images):
    """A loop over channels, images and fields of the decision."""
    fields = {}
    for name, own in decision._asdict().items():
        closed, opened = FIXED[name]
        rows = [
            [
                own[image, GATED.index(channel)].item()
                if channel in GATED
                else (closed if channel in CLOSED else opened)
                for channel in range(CHANNELS)
            ]
            for image in range(images)
        ]
        fields[name] = torch.tensor(rows).float()
    return fields


@pytest.mark.parametrize('training', [True, False])
def test_each_channel_is_its_gates_or_fixed(inner, maps, training):
    gate = PartialGate(inner, CHANNELS, GATED, CLOSED).train(training)
    torch.manual_seed(3)  # the sample of a training mask
    want = inner(maps)
    torch.manual_seed(3)
    got = gate(maps)
    assert type(got) is type(want)
    assert 0 < (want.mask != 0).float().mean() < 1
    for name, value in naive(want, len(maps)).items():
        assert torch.equal(getattr(got, name), value), name
    assert torch.equal(got.mask[:, OPEN], torch.ones(7, len(OPEN)))
    assert not got.mask[:, CLOSED].any()


def test_a_scaling_gate_has_saliencies_of_fixed_channels(maps):
    inner = FBSGate(6, len(GATED))
    got = PartialGate(inner, CHANNELS, GATED, CLOSED)(maps)
    assert isinstance(got, ScalingDecision)
    assert (got.saliency[:, OPEN] == 1).all()
    assert (got.saliency[:, CLOSED] == 0).all()
    assert torch.equal(got.saliency[:, GATED], inner(maps).saliency)


def test_only_the_gates_channels_have_a_gradient(inner, maps):
    gate = PartialGate(inner, CHANNELS, GATED, CLOSED)
    gate(maps).mask[:, OPEN + CLOSED].sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in gate.parameters())
    gate(maps).mask.sum().backward()
    assert any(p.grad.any() for p in gate.parameters())


def test_without_a_gate_all_is_fixed(maps):
    gate = PartialGate(None, CHANNELS, [], CLOSED)
    got = gate(maps)
    want = [[float(c not in CLOSED) for c in range(CHANNELS)]] * len(maps)
    assert type(got) is GateDecision
    assert got.mask.tolist() == got.probs.tolist() == want
    assert torch.equal(got.logits > 0, got.mask == 1)
    assert gate.threshold is None
    gate.threshold = 0.3  # no gate to set it on
    assert gate.threshold is None


def test_the_threshold_is_that_of_the_gate_inside(maps):
    gate = PartialGate(BinaryConcreteGate(6, 3), CHANNELS, GATED, CLOSED)
    gate.eval().threshold = 0.999
    assert gate.gate.threshold == gate.threshold == 0.999
    assert not gate(maps).mask[:, GATED].any()
    assert gate(maps).mask[:, OPEN].all()


def test_a_checkpoint_holds_the_gate_alone(inner):
    gate = PartialGate(inner, CHANNELS, GATED, CLOSED)
    assert set(gate.state_dict()) == {f'gate.{k}' for k in inner.state_dict()}


def test_where_each_channel_comes_from(inner):
    gate = PartialGate(inner, CHANNELS, GATED, CLOSED)
    own = [f'gate {i}' for i in range(len(GATED))]
    sources = [[*own, 'closed', 'open'][i] for i in gate.output_index]
    assert [sources[c] for c in GATED] == own
    assert {sources[c] for c in CLOSED} == {'closed'}
    assert {sources[c] for c in OPEN} == {'open'}
    closed, opened = FIXED_LOGITS
    assert closed < 0 < opened
