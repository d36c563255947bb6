"""The loss with a target for the pruning ratio."""

from dataclasses import replace

import pytest
import torch

from fgc_mm.errors import FGCError
from fgc_mm.functional import LayerMACs, MACsTable
from fgc_mm.losses import GateBatch, MACsTargetLoss

# conv 2 -> 5 (site early), conv 5 -> 3 (site late), conv 3 -> 2, a gate
TABLE = MACsTable(
    (
        LayerMACs('x', 'backbone', 10, 2, 5, 1, (), ((0, None),)),
        LayerMACs('y', 'backbone', 10, 5, 3, 1, ((0, None),), ((1, None),)),
        LayerMACs('z', 'backbone', 10, 3, 2, 1, ((1, None),)),
        LayerMACs('g', 'gate', 1, 5, 2),
    ),
    ('early', 'late'),
    (5, 3),
)
DENSE = 10 * (10 + 15 + 6)


def naive_share(masks, image):
    early, late = (int((m[image] != 0).sum()) for m in masks)
    return (10 * (2 * early + early * late + 2 * late) + 10) / DENSE


def loss_of(ratio, **options):
    loss = MACsTargetLoss(ratio, **options)
    return lambda records: loss(GateBatch(records, macs_table=TABLE))


def set_masks(records, masks):
    return [replace(r, mask=m) for r, m in zip(records, masks)]


def test_against_loops(given):
    records = given.records()
    shares = [naive_share([r.mask for r in records], i) for i in range(4)]
    want = 5 * (sum(shares) / 4 - 0.7) ** 2
    assert loss_of(0.3)(records).item() == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize(('ratio', 'sign'), [(0.9, 1), (0.01, -1)])
def test_the_gradient_is_that_of_the_masks(given, ratio, sign):
    masks = [
        torch.tensor([[1.0, 0, 1, 1, 0]] * 4, requires_grad=True),
        torch.tensor([[0.0, 1, 1]] * 4, requires_grad=True),
    ]
    records = set_masks(given.records(), masks)
    loss_of(ratio)(records).backward()
    # closed channels too: they must be able to open again
    assert all((sign * mask.grad > 0).all() for mask in masks)


def test_it_counts_what_evaluation_opens_not_the_sample(given):
    records = given.records()
    for other in (
        [1 - r.mask for r in records], [r.mask * 0.3 for r in records]
    ):  # fmt: skip
        torch.testing.assert_close(
            loss_of(0.3)(set_masks(records, other)), loss_of(0.3)(records)
        )


@pytest.mark.parametrize('ratio', [0, 1, -0.2, 1.5, float('nan')])
def test_an_invalid_ratio_is_refused(ratio):
    with pytest.raises(
        FGCError, match=r'is not a fraction .* such as 0\.55\.$'
    ):
        MACsTargetLoss(ratio)


def test_an_unreachable_ratio_is_refused(given):
    # the gates alone cost 10 of 310
    with pytest.raises(FGCError, match=r'3\.2% .* ask for less than 0\.968'):
        loss_of(0.97)(given.records())
    loss_of(0.96)(given.records())


def test_a_smaller_image_does_not_end_a_run(given):
    """Its gates are a larger part; the target was checked at the start."""
    loss, records = MACsTargetLoss(0.9), given.records()
    loss(GateBatch(records, macs_table=TABLE))
    gate = replace(TABLE.layers[-1], unit=30)
    small = replace(TABLE, layers=(*TABLE.layers[:-1], gate))
    assert loss(GateBatch(records, macs_table=small)).isfinite()
    with pytest.raises(FGCError, match='out of reach'):
        MACsTargetLoss(0.9)(GateBatch(records, macs_table=small))


def test_without_a_table_the_error_names_the_classifier(given):
    with pytest.raises(
        FGCError, match=r'macs_table of the batch; .*GatedModel'
    ):
        MACsTargetLoss(0.5)(GateBatch(given.records()))


def test_a_logit_of_0_is_closed_as_in_evaluation(given):
    records = [
        replace(r, logits=r.logits.detach() * 0) for r in given.records()
    ]
    # only the gate (10 MACs) is left
    want = 5 * (10 / DENSE - 0.7) ** 2
    assert loss_of(0.3)(records).item() == pytest.approx(want, rel=1e-5)
