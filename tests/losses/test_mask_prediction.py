"""FTWT's loss against loops, and its cooldown."""

import math
from dataclasses import replace

import pytest
import torch

from fgc_mm.errors import FGCError
from fgc_mm.functional import mass_mask, uniform_mask
from fgc_mm.functional.schedule import Progress
from fgc_mm.losses import GateBatch, MaskPredictionLoss


def naive(records, target, ratio):
    sites = []
    for record in records:
        wanted = target(record.activation, ratio)
        rows = []
        for logits, want in zip(record.logits.tolist(), wanted.tolist()):
            probs = [1 / (1 + math.exp(-a)) for a in logits]
            rows.append(-sum(
                math.log(p) if w else math.log(1 - p)
                for p, w in zip(probs, want)
            ))  # fmt: skip
        sites.append(sum(rows) / len(rows))
    return sum(sites) / len(sites)


@pytest.mark.parametrize(
    ('target', 'function', 'ratio'),
    [('mass', mass_mask, 0.6), ('uniform', uniform_mask, 0.4)],
)
def test_against_loops(given, target, function, ratio):
    records = given.records()
    loss = MaskPredictionLoss(ratio, target, loss_weight=0.5)
    want = 0.5 * naive(records, function, ratio)
    assert loss(GateBatch(records)).item() == pytest.approx(want, rel=1e-5)


def test_it_trains_the_gates_alone(given):
    records = given.records()
    MaskPredictionLoss(0.6)(GateBatch(records)).backward()
    for record in records:
        assert record.activation.grad is None
        wanted = mass_mask(record.activation, 0.6)
        slope = (record.probs - wanted).detach() / len(wanted) / len(records)
        torch.testing.assert_close(record.logits.grad, slope)


def test_in_the_cooldown_the_gates_stay_in_the_graph(given):
    half = dict(start_value=1.0, end_value=0.0, begin=5, end=5)
    loss, records = MaskPredictionLoss(0.6, loss_weight=half), given.records()
    assert loss(GateBatch(records, progress=Progress(4, 0))) > 0
    cooled = loss(GateBatch(records, progress=Progress(5, 0)))
    assert cooled == 0
    cooled.backward()
    for record in records:
        assert record.logits.grad.abs().sum() == 0


def test_an_invalid_target_is_refused(given):
    with pytest.raises(FGCError, match=r"target='best'.*mass, uniform"):
        MaskPredictionLoss(0.5, 'best')
    with pytest.raises(FGCError, match=r'ratio=0 of the mass target leaves'):
        MaskPredictionLoss(0)
    with pytest.raises(FGCError, match=r'ratio=1 of the uniform target'):
        MaskPredictionLoss(1, 'uniform')
    bare = [replace(r, activation=None) for r in given.records()]
    with pytest.raises(FGCError, match=r'keep_activation=True'):
        MaskPredictionLoss(0.5)(GateBatch(bare))
