"""Batch shaping over all sites."""

import pytest
import torch

from fgc_mm.functional import batch_shaping
from fgc_mm.losses import BatchShapingLoss, GateBatch


@pytest.mark.parametrize('prior', [(0.6, 0.4), (2.0, 3.0)])
def test_it_sums_over_sites_with_its_prior(given, prior):
    records = given.records(count=9)
    value = BatchShapingLoss(*prior, loss_weight=0.5)(GateBatch(records))
    want = sum(batch_shaping(r.probs, *prior) for r in records)
    torch.testing.assert_close(value, 0.5 * want)
    value.backward()
    assert all(r.logits.grad.abs().sum() > 0 for r in records)


def test_the_published_numbers_are_the_defaults(given):
    loss = BatchShapingLoss()
    assert (loss.alpha, loss.beta, loss.name) == (0.6, 0.4, 'shaping')
    records = given.records()
    want = sum(batch_shaping(r.probs, 0.6, 0.4) for r in records)
    torch.testing.assert_close(loss(GateBatch(records)), 0.75 * want)
