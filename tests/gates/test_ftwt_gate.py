"""FTWT's gate against its definition."""

import math

import pytest
import torch

from fgc_mm.errors import FGCError
from fgc_mm.gates import FTWTGate


@pytest.fixture
def maps():
    return torch.randn(7, 6, 4, 5, generator=torch.Generator().manual_seed(1))


def naive_logits(gate, maps):
    pools = {'average': lambda m: sum(m) / len(m), 'max': max}
    rows = []
    for image in maps:
        pooled = [pools[gate.pool](m.flatten().tolist()) for m in image]
        total = sum(map(math.exp, pooled))
        soft = torch.tensor([math.exp(p) / total for p in pooled])
        rows.append(gate.predict.weight @ soft + gate.predict.bias)
    return torch.stack(rows)


@pytest.mark.parametrize('pool', ['average', 'max'])
def test_logits_are_those_of_the_definition(pool, maps):
    gate = FTWTGate(6, 9, pool=pool)
    logits, probs, mask = gate(maps)
    torch.testing.assert_close(logits, naive_logits(gate, maps))
    torch.testing.assert_close(probs, logits.sigmoid())
    assert torch.equal(mask, (probs > 0.5).float())


def test_training_is_as_hard_and_as_quiet_as_evaluation(maps):
    gate = FTWTGate(6, 9)
    trained, tested = gate.train()(maps), gate.eval()(maps)
    assert torch.equal(trained.mask, tested.mask)
    assert not trained.mask.requires_grad


@pytest.mark.parametrize('decoupled', [True, False])
def test_the_layers_below_learn_from_it_only_if_joint(decoupled, maps):
    gate = FTWTGate(6, 9, decoupled=decoupled)
    maps.requires_grad_()
    gate(maps).logits.sum().backward()
    assert (maps.grad is None) == decoupled
    assert gate.predict.weight.grad.abs().sum() > 0


def test_a_threshold_moves_the_mask(maps):
    gate = FTWTGate(6, 9).eval()
    _, probs, _ = gate(maps)
    gate.threshold = 0.55
    assert torch.equal(gate(maps).mask, (probs > 0.55).float())


def test_invalid_settings_are_refused():
    with pytest.raises(FGCError, match=r"pool='min'.*average, max"):
        FTWTGate(3, 4, pool='min')
    with pytest.raises(FGCError, match=r'threshold=1\.0 of FTWTGate'):
        FTWTGate(3, 4, threshold=1.0)
