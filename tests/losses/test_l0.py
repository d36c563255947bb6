"""The L0 loss, and properties of all gate losses."""

import pytest
import torch

from fgc_mm.errors import FGCError
from fgc_mm.functional.schedule import Progress
from fgc_mm.losses import GateBatch, GateLoss, L0Loss


def naive(records, reduction):
    flat, per_site = [], 0.0
    for record in records:
        rows = record.probs.tolist()
        flat += [p for row in rows for p in row]
        per_site += sum(sum(row) for row in rows) / len(rows)
    return sum(flat) / len(flat) if reduction == 'mean' else per_site


@pytest.mark.parametrize('reduction', ['mean', 'sites'])
def test_against_loops(given, reduction):
    records = given.records()
    loss = L0Loss(loss_weight=0.3, reduction=reduction)
    value = loss(GateBatch(records))
    assert value.item() == pytest.approx(0.3 * naive(records, reduction))
    value.backward()
    for record in records:
        assert (record.logits.grad > 0).all()


def test_a_wide_site_weighs_more_in_the_mean(given):
    records = given.records()
    L0Loss(1.0)(GateBatch(records)).backward()
    slope = (records[0].probs * (1 - records[0].probs)) / (4 * 8)
    torch.testing.assert_close(records[0].logits.grad, slope)


def test_an_unknown_reduction_is_refused():
    with pytest.raises(FGCError, match=r"'sum' .* among mean, sites\.$"):
        L0Loss(reduction='sum')


def test_a_weight_that_moves_follows_the_progress(given):
    records = given.records()
    moving = dict(start_value=0, end_value=1, begin=0, end=10)
    loss, fixed = L0Loss(moving), L0Loss(1.0)
    with pytest.raises(FGCError, match='LossProgressHook'):
        loss(GateBatch(records))
    for epoch in (5, 10):
        batch = GateBatch(records, progress=Progress(epoch, 0))
        torch.testing.assert_close(loss(batch), epoch / 10 * fixed(batch))


def test_a_weight_of_zero_computes_nothing(given):
    class Never(GateLoss):
        def compute(self, batch):
            raise AssertionError

    zero = Never(0.0, 'never')(GateBatch(given.records()))
    assert zero.shape == () and zero.item() == 0


def test_a_loss_has_a_name():
    assert L0Loss().name == 'l0' and L0Loss(name='mine').name == 'mine'
