"""What gate losses make of decisions that open several channels.

Losses of the share of open channels count channels; losses that
shape decisions count decisions.
"""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from fgc_mm.functional.mask_targets import mass_mask, uniform_mask
from fgc_mm.gates import GateDecision
from fgc_mm.losses import (
    BatchShapingLoss,
    FeatureGateCouplingLoss,
    GateBatch,
    GramSimilarityLoss,
    L0Loss,
    MaskPredictionLoss,
    SaliencyL1Loss,
)
from fgc_mm.sites import GateRecord

SIZES = {'early': (2, 2, 1), 'late': (3,)}


@pytest.fixture
def grouped(given):
    """Records with fewer decisions than channels."""
    generator = torch.Generator().manual_seed(4)
    records = []
    for record in given.records():
        sizes = SIZES[record.site.name]
        site = replace(record.site, group_sizes=sizes)
        logits = torch.randn(4, len(sizes), generator=generator)
        logits.requires_grad_()
        mask = site.spread(logits > 0).float()
        decision = GateDecision(logits, logits.sigmoid(), mask)
        records.append(GateRecord(site, record.activation, *decision))
    return records


@pytest.fixture
def wide(grouped):
    """The same decisions, repeated for each channel."""
    return [
        GateRecord(
            replace(r.site, group_sizes=None),
            r.activation,
            r.site.spread(r.logits),
            r.site.spread(r.probs),
            r.mask,
        )
        for r in grouped
    ]


@pytest.mark.parametrize(
    'loss',
    [
        L0Loss(1.0),
        L0Loss(1.0, 'sites'),
        *(
            SaliencyL1Loss(reduction, loss_weight=1.0)
            for reduction in ('sum', 'mean', 'site_means')
        ),
    ],
)
def test_losses_on_openness_count_channels(loss, grouped, wide):
    torch.testing.assert_close(loss(GateBatch(grouped)), loss(GateBatch(wide)))
    flat = [r.probs.flatten() for r in grouped]
    if isinstance(loss, L0Loss) and loss.reduction == 'mean':
        # 2 : 2 : 1 and 3 channels: not the mean over decisions
        mean = torch.cat(flat).mean().item()
        assert loss(GateBatch(grouped)).item() != pytest.approx(mean)


def test_shaping_counts_each_decision_once(grouped, wide):
    loss = BatchShapingLoss(loss_weight=1.0)
    alone = sum(
        loss(GateBatch([replace(r, probs=r.probs[:, [g]])]))
        for r in grouped
        for g in range(r.probs.shape[1])
    )
    torch.testing.assert_close(loss(GateBatch(grouped)), alone)
    assert loss(GateBatch(grouped)) < loss(GateBatch(wide))


@pytest.mark.parametrize(
    ('kind', 'target', 'ratio'),
    [('mass', mass_mask, 0.7), ('uniform', uniform_mask, 0.4)],
)
def test_the_score_of_a_group_is_the_sum_of_its_channels(
    kind, target, ratio, grouped
):
    loss = MaskPredictionLoss(ratio, kind)
    want = 0
    for record in grouped:
        peaks = record.activation.detach().flatten(2).amax(dim=2)
        parts = peaks.split(SIZES[record.site.name], dim=1)
        scores = torch.stack([part.sum(dim=1) for part in parts], dim=1)
        wanted = target(scores, ratio)
        want += bce(record.logits, wanted, reduction='sum') / 4 / 2
    torch.testing.assert_close(loss(GateBatch(grouped)), want)


def test_coupling_has_a_gate_bank_of_decisions(grouped, given):
    loss = FeatureGateCouplingLoss(num_neighbors=2, warmup_epochs=0)
    loss.build_banks([r.site for r in grouped], length=9)
    for name, banks in loss.banks.items():
        assert banks.feature.rows.shape[1] == sum(SIZES[name])
        assert banks.gate.rows.shape[1] == len(SIZES[name])
    value = loss(GateBatch(grouped, given.samples([0, 3, 5, 8])))
    value.backward()
    assert value > 0
    assert all(r.logits.grad.any() for r in grouped)
    before = [b.gate.rows.clone() for b in loss.banks.values()]
    loss.write_banks()
    for rows, banks in zip(before, loss.banks.values()):
        changed = (rows != banks.gate.rows).any(dim=1).nonzero().flatten()
        assert changed.tolist() == [0, 3, 5, 8]


def test_gram_matrices_are_of_decisions(grouped):
    loss = GramSimilarityLoss(loss_weight=1.0)
    value = loss(GateBatch(grouped))
    value.backward()
    assert value > 0
    assert all(r.logits.grad.any() for r in grouped)
