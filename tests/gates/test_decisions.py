"""What the outputs of every gate have in common, as gate_losses use them."""

import pytest
import torch

from fgc_mm.gates.build import build_gate

GATES = [
    dict(type='fgc_mm.BinaryConcreteGate'),
    dict(type='fgc_mm.BinaryConcreteGate', group=4),
    dict(type='fgc_mm.FBSGate', density=0.5),
    dict(type='fgc_mm.FTWTGate'),
    dict(type='fgc_mm.ManiDPGate', keep=0.5),
]


def names(settings):
    return '_'.join(str(value) for value in settings.values())


@pytest.fixture(params=GATES, ids=names)
def decided(request):
    torch.manual_seed(0)
    gate = build_gate(request.param, 6, 8).eval()
    for weight in gate.parameters():
        torch.nn.init.normal_(weight)
    with torch.autocast('cpu', torch.bfloat16), torch.no_grad():
        return gate(torch.randn(32, 6, 1, 1))


def test_probabilities_are_those_of_the_logits(decided):
    assert decided.logits.dtype == decided.probs.dtype == torch.float32
    torch.testing.assert_close(decided.probs, decided.logits.sigmoid())


def test_a_channel_is_open_where_the_logit_of_its_decision_is_above_0(decided):
    channels, decisions = decided.mask.shape[1], decided.logits.shape[1]
    is_open = (decided.logits > 0).repeat_interleave(channels // decisions, 1)
    assert torch.equal(decided.mask != 0, is_open)
    assert 0 < is_open.float().mean() < 1
