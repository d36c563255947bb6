"""Losses on saliencies: their norm, easy images, Gram matrices."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from mmpretrain.structures import DataSample

from fgc_mm.errors import FGCError
from fgc_mm.functional import gram_similarity
from fgc_mm.functional.schedule import Progress
from fgc_mm.losses import GateBatch, GramSimilarityLoss, SaliencyL1Loss


@pytest.fixture
def scaled(given):
    """Records of gates that scale."""
    return [
        replace(r, saliency=3 * r.logits.detach().relu().requires_grad_())
        for r in given.records()
    ]


def test_the_norm_against_loops(scaled, given):
    for records, field in ((scaled, 'saliency'), (given.records(), 'probs')):
        rows = [
            [v for r in records for v in getattr(r, field)[image].tolist()]
            for image in range(4)
        ]
        total = sum(map(sum, rows)) / 4
        assert SaliencyL1Loss(loss_weight=2.0)(GateBatch(records)).item() == (
            pytest.approx(2 * total)
        )
        mean = SaliencyL1Loss('mean', loss_weight=1.0)(
            GateBatch(records)
        ).item()
        assert mean == pytest.approx(total / 8)


def test_site_means_are_summed_over_sites(scaled, given):
    for records, field in ((scaled, 'saliency'), (given.records(), 'probs')):
        total = 0.0
        for record in records:  # of 5 and of 3 channels
            for row in getattr(record, field).tolist():
                total += sum(row) / len(row) / 4
        loss = SaliencyL1Loss('site_means', loss_weight=2.0)
        assert loss(GateBatch(records)).item() == pytest.approx(2 * total)
        # as many times the mean as there are sites, where they are equal
        twice = [records[0]] * 19
        mean = SaliencyL1Loss('mean', loss_weight=2.0)(GateBatch(twice))
        assert loss(GateBatch(twice)).item() == pytest.approx(19 * mean.item())


def test_site_means_weigh_each_image_by_its_easiness(scaled):
    loss = SaliencyL1Loss('site_means', easiness=True, loss_weight=1.0)
    scores = 3 * torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    labels = [0, 4, 2, 2]
    assert easy(loss, scaled, scores, labels, 0) == 0
    ce = F.cross_entropy(scores, torch.tensor(labels), reduction='none')
    bound = ce.mean().item() / 2
    want = 0.0
    for image, entropy in enumerate(ce.tolist()):
        weight = max(0.0, (bound - entropy) / bound)
        for record in scaled:
            row = record.saliency[image].tolist()
            want += weight * sum(row) / len(row) / 4
    got = easy(loss, scaled, scores, labels, 1)
    assert got.item() == pytest.approx(want, rel=1e-5)


def easy(loss, records, scores, labels, epoch):
    samples = [DataSample().set_gt_label(label) for label in labels]
    progress = Progress(epoch, 0)
    return loss(GateBatch(records, samples, progress, scores=scores))


def test_easy_images_weigh_by_half_the_mean_of_the_last_epoch(scaled):
    loss = SaliencyL1Loss('mean', easiness=True, loss_weight=1.0)
    assert loss.needs_scores
    scores = 3 * torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    labels = [0, 4, 2, 2]
    for _ in range(2):  # the first epoch has no mean yet
        assert easy(loss, scaled, scores, labels, 0) == 0
    ce = F.cross_entropy(scores, torch.tensor(labels), reduction='none')
    bound = ce.mean().item() / 2
    weights = [max(0.0, (bound - c) / bound) for c in ce.tolist()]
    assert 0 < sum(w > 0 for w in weights) < 4
    norms = torch.cat([r.saliency for r in scaled], dim=1).mean(dim=1)
    want = sum(w * n for w, n in zip(weights, norms.tolist())) / 4
    got = easy(loss, scaled, scores, labels, 1)
    assert got.item() == pytest.approx(want, rel=1e-5)
    again = SaliencyL1Loss('mean', easiness=True, loss_weight=1.0)
    again.load_state_dict(loss.state_dict())
    torch.testing.assert_close(easy(again, scaled, scores, labels, 1), got)
    # the third epoch replaces the images of the first two
    easy(loss, scaled, 0 * scores, labels, 2)
    easy(loss, scaled, scores, labels, 3)
    uniform = F.cross_entropy(torch.zeros(1, 5), torch.tensor([0])).item()
    assert loss.easiness.bound.item() == pytest.approx(uniform / 2)


def test_a_weight_that_starts_later_works_from_its_first_epoch(scaled):
    late = dict(start_value=0.0, end_value=1.0, begin=2, end=2)
    loss = SaliencyL1Loss('mean', easiness=True, loss_weight=late)
    whole = SaliencyL1Loss('mean', easiness=True, loss_weight=1.0)
    scores = 3 * torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    for epoch in range(4):
        found, want = (
            easy(x, scaled, scores, [0, 4, 2, 2], epoch) for x in (loss, whole)
        )
        assert found == (want if epoch >= 2 else 0)
    assert want > 0


def test_mixed_labels_have_a_cross_entropy_too(scaled):
    loss = SaliencyL1Loss('mean', easiness=True, loss_weight=1.0)
    now, scores = Progress(0, 0), torch.randn(4, 5)
    samples = [DataSample().set_gt_score(torch.full((5,), 0.2))] * 4
    assert loss(GateBatch(scaled, samples, now, scores=scores)).isfinite()


def test_gram_is_the_sum_over_the_chosen_sites(scaled, given):
    for records, field in ((scaled, 'saliency'), (given.records(), 'probs')):
        each = [
            gram_similarity(getattr(r, field), r.activation.mean((2, 3)))
            for r in records
        ]
        one = GramSimilarityLoss(loss_weight=2.0)(GateBatch(records))
        torch.testing.assert_close(one, 2 * sum(each))
        late = GramSimilarityLoss(['la*'], loss_weight=1.0)(GateBatch(records))
        torch.testing.assert_close(late, each[1])
        last = GramSimilarityLoss(1, loss_weight=1.0)(GateBatch(records))
        torch.testing.assert_close(last, each[1])


def test_gram_leaves_the_features_alone(scaled):
    GramSimilarityLoss()(GateBatch(scaled)).backward()
    assert all(r.activation.grad is None for r in scaled)


def test_gram_moves_the_features_where_they_are_not_detached(scaled):
    loss = GramSimilarityLoss(detach=False)(GateBatch(scaled))
    assert loss == GramSimilarityLoss()(GateBatch(scaled))
    loss.backward()
    for record in scaled:
        assert record.activation.grad.abs().sum() > 0


def test_unknown_options_are_refused(scaled):
    with pytest.raises(
        FGCError, match=r"reduction='max'.*sum, mean, site_means"
    ):
        SaliencyL1Loss('max')
    with pytest.raises(FGCError, match=r"'fgc_mm\.LossProgressHook'"):
        SaliencyL1Loss(easiness=True)(GateBatch(scaled))
    with pytest.raises(FGCError, match=r'sites=3 of GramSimilarityLoss'):
        GramSimilarityLoss(3)(GateBatch(scaled))
    bare = [replace(r, activation=None) for r in scaled]
    with pytest.raises(FGCError, match=r'keep_activation=True'):
        GramSimilarityLoss()(GateBatch(bare))
