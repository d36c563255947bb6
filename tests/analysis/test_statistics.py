"""Every statistic against plain loops."""

import math

import numpy as np
import pytest

from fgc_mm.analysis.statistics import (
    calibration,
    channel_use,
    choose_method,
    cluster,
    cluster_agreement,
    embed,
    execution_frequency,
    extremes,
    macs_bins,
    nearest_images,
    neighbor_agreement,
    rank_correlation,
)
from fgc_mm.errors import FGCError

RANDOM = np.random.default_rng(0)
FEATURES = RANDOM.normal(size=(30, 5)).astype(np.float32)
GATES = RANDOM.normal(size=(30, 4)).astype(np.float32)
LABELS = np.array([i % 3 for i in range(30)])


def naive_nmi(first, second):
    """Mutual information over the mean of the two entropies."""
    n, mutual = len(first), 0.0

    def entropy(groups):
        counts = [list(groups).count(g) for g in set(groups)]
        return -sum(c / n * math.log(c / n) for c in counts)

    for a in set(first):
        for b in set(second):
            both = sum(x == a and y == b for x, y in zip(first, second))
            if both:
                p, q = list(first).count(a) / n, list(second).count(b) / n
                mutual += both / n * math.log(both / n / (p * q))
    mean = (entropy(first) + entropy(second)) / 2
    return mutual / mean if mean else 1.0


def naive_nearest(vectors, query, k):
    def cosine(i):
        a, b = vectors[query].astype(float), vectors[i].astype(float)
        return sum(a * b) / math.sqrt(sum(a * a) * sum(b * b))

    others = [i for i in range(len(vectors)) if i != query]
    return sorted(others, key=lambda i: (-cosine(i), i))[:k]


def test_nmi():
    found = cluster_agreement(FEATURES, GATES, LABELS, 4, seed=1)
    groups = [cluster(space, 4, 1).tolist() for space in (FEATURES, GATES)]
    labels = LABELS.tolist()
    assert found.nmi == pytest.approx(naive_nmi(*groups))
    assert found.features_labels == pytest.approx(naive_nmi(groups[0], labels))
    assert found.gates_labels == pytest.approx(naive_nmi(groups[1], labels))
    assert found.ami < found.nmi  # chance is taken away


def test_clusters_find_groups_that_are_far_apart():
    centres = np.array([[0, 0], [50, 0], [0, 50]])[LABELS]
    vectors = centres + RANDOM.normal(size=(30, 2))
    found = cluster(vectors, 3, 0)
    assert naive_nmi(found.tolist(), LABELS.tolist()) == pytest.approx(1)
    same = cluster_agreement(vectors, -vectors, LABELS, 3)
    assert same == pytest.approx((1, 1, 1, 1))


def test_constant_gates_have_no_mutual_information():
    found = cluster_agreement(FEATURES, np.ones((30, 4)), LABELS, 3)
    assert found.nmi == found.gates_labels == 0


@pytest.mark.parametrize('clusters', [1, 31])
def test_clusters_fit_the_images(clusters):
    text = f'--clusters {clusters} does not fit 30 images'
    with pytest.raises(FGCError, match=text):
        cluster(FEATURES, clusters, 0)


def test_channels():
    mask = np.array([[0, 1, 0.3], [0, 2, 0], [0, 1, 0.3], [0, 1, 0]])
    use = channel_use(mask)
    assert use == (pytest.approx(6 / 12), 1, 1, 2)


def test_execution_frequency():
    mask = RANDOM.random((30, 6)) * (RANDOM.random((30, 6)) > 0.4)
    found = execution_frequency(mask, LABELS, 4)
    for label in range(3):
        for channel in range(6):
            opened = [mask[i, channel] != 0 for i in range(30)
                      if LABELS[i] == label]  # fmt: skip
            share = sum(opened) / len(opened)
            assert found[label, channel] == pytest.approx(share)
    assert np.isnan(found[3]).all()


def test_retrieval():
    queries = np.array([3, 0, 29])
    found = nearest_images(GATES, queries, 7)
    naive = [naive_nearest(GATES, query, 7) for query in queries]
    assert found.tolist() == naive


def test_neighbors_common_to_both_spaces():
    queries, k = np.arange(0, 30, 2), 6
    found = neighbor_agreement(FEATURES, GATES, LABELS, queries, k)
    common, of_class, by_chance = [], [[], []], []
    for query in queries:
        near = [naive_nearest(s, query, k) for s in (FEATURES, GATES)]
        common.append(len(set(near[0]) & set(near[1])) / k)
        for shares, rows in zip(of_class, near):
            shares.append(sum(LABELS[i] == LABELS[query] for i in rows) / k)
        same = [LABELS[i] == LABELS[query] for i in range(30) if i != query]
        by_chance.append(sum(same) / 29)
    assert found.common == pytest.approx(np.mean(common))
    assert found.chance == pytest.approx(k / 29)
    assert found.same_class_features == pytest.approx(np.mean(of_class[0]))
    assert found.same_class_gates == pytest.approx(np.mean(of_class[1]))
    assert found.same_class_chance == pytest.approx(np.mean(by_chance))


def test_chance_is_what_random_neighbors_have_in_common():
    shares = []
    for _ in range(300):
        draws = [set(RANDOM.choice(29, 6, replace=False)) for _ in range(2)]
        shares.append(len(draws[0] & draws[1]) / 6)
    assert np.mean(shares) == pytest.approx(6 / 29, abs=0.03)


def test_neighbors_fit_the_images():
    text = '--neighbors 30 does not fit 30 images'
    with pytest.raises(FGCError, match=text):
        nearest_images(GATES, np.arange(3), 30)


def test_rows_of_zeros_have_neighbors():
    found = nearest_images(np.zeros((4, 2), np.float32), np.array([2]), 3)
    assert found.tolist() == [[0, 1, 3]]


def test_macs_bins():
    macs = RANDOM.permutation(np.repeat([1.0, 2.0, 3.0, 5.0, 9.0, 10.0], 5))
    correct, confidence = RANDOM.random(30) > 0.3, RANDOM.random(30)
    bins = macs_bins(macs, correct, confidence, 3)
    assert [(b.low, b.high, b.images) for b in bins] == [
        (1, 2, 10), (3, 5, 10), (9, 10, 10)]  # fmt: skip
    for found in bins:
        inside = [i for i in range(30) if found.low <= macs[i] <= found.high]
        right = sum(correct[i] for i in inside)
        assert found.accuracy == pytest.approx(right / len(inside))
        assert found.mean == pytest.approx(np.mean([macs[i] for i in inside]))
        mean = np.mean([confidence[i] for i in inside])
        assert found.confidence == pytest.approx(mean)
        assert found.accuracy_low < found.accuracy < found.accuracy_high


def test_images_of_equal_cost_are_in_one_bin():
    macs = np.repeat([1.0, 2.0, 3.0], [12, 9, 9])
    bins = macs_bins(macs, macs > 1, macs / 3, 3)
    assert [(b.low, b.high, b.images) for b in bins] == [
        (1, 1, 12), (2, 2, 9), (3, 3, 9)]  # fmt: skip
    macs = np.repeat([1.0, 3.0], [10, 20])
    assert [b.images for b in macs_bins(macs, macs > 1, macs, 10)] == [10, 20]


def test_images_of_one_cost_are_one_bin():
    (only,) = macs_bins(np.full(30, 7.0), LABELS > 0, GATES[:, 0], 10)
    assert only.images == 30 and only.low == only.high == 7
    assert rank_correlation(np.full(30, 7.0), LABELS) == (None, None)


def test_rank_correlation():
    found = rank_correlation(np.arange(30.0), np.arange(30.0) ** 3)
    assert found.correlation == pytest.approx(1)


def test_extremes():
    macs = np.array([5, 1, 9, 1, 9, 2, 3])
    cheapest, most_expensive = extremes(macs, 3)
    assert cheapest.tolist() == [1, 3, 5]
    assert most_expensive.tolist() == [2, 4, 0]
    assert [len(x) for x in extremes(macs, 100)] == [3, 3]


def test_calibration():
    confidence = np.concatenate([RANDOM.random(200), [0.0, 1.0, 0.2]])
    correct = RANDOM.random(203) > 0.4
    found = calibration(confidence, correct, bins=5)
    error = 0
    for low, row in zip((0, 0.2, 0.4, 0.6, 0.8), found.bins):
        inside = [i for i, c in enumerate(confidence)
                  if low < c <= low + 0.2 or c == low == 0]  # fmt: skip
        said = sum(confidence[i] for i in inside) / len(inside)
        hit = sum(correct[i] for i in inside) / len(inside)
        assert (row.images, row.confidence, row.accuracy) == (
            len(inside), pytest.approx(said), pytest.approx(hit))  # fmt: skip
        error += len(inside) / 203 * abs(said - hit)
    assert found.error == pytest.approx(error)
    assert calibration(confidence * 7, correct) is None


@pytest.mark.parametrize('method', ['tsne', 'pca', 'umap'])
def test_embeddings_are_the_same_under_a_seed(method):
    if method == 'umap':
        pytest.importorskip('umap.umap_')
    points, name = embed(FEATURES, method, seed=3)
    again, _ = embed(FEATURES, method, seed=3)
    assert points.shape == (30, 2) and np.isfinite(points).all()
    assert np.array_equal(points, again)
    assert name.lower().replace('-', '') == method


def test_an_embedding_starts_from_the_given_points():
    vectors = np.eye(3)[LABELS] * 9 + RANDOM.normal(size=(30, 3))
    first, _ = embed(vectors, 'tsne', 0)
    for flip in ([1, 1], [-1, 1], [1, -1]):
        again, _ = embed(vectors, 'tsne', 0, first * flip)
        for axis in range(2):
            moved = np.corrcoef(first[:, axis] * flip[axis], again[:, axis])
            assert moved[0, 1] > 0.8


def test_few_different_vectors_are_placed_by_pca():
    points, name = embed(np.ones((30, 3)), 'tsne')
    assert name == 'PCA' and not points.any()
    points, name = embed(np.arange(5.0)[:, None], 'tsne')
    assert name == 'PCA' and np.isfinite(points).all()


def test_methods_of_embedding(monkeypatch):
    found = []
    monkeypatch.setattr(
        'importlib.metadata.distributions', lambda *, name: iter(found)
    )
    assert choose_method() == 'tsne'
    with pytest.raises(FGCError, match='pip install umap-learn'):
        choose_method('umap')
    found.append('umap-learn')
    assert choose_method() == choose_method('umap') == 'umap'
    with pytest.raises(FGCError, match="'lda' is unknown"):
        choose_method('lda')


def test_a_start_in_one_point_or_on_a_line_is_no_start():
    """As of an early checkpoint whose gates do the same for all images."""
    line = np.zeros((len(FEATURES), 2))
    line[:, 1] = np.arange(len(FEATURES))
    for start in (np.zeros_like(line), line):
        points, _ = embed(FEATURES, 'tsne', 0, start)
        assert (np.linalg.svd(points - points.mean(axis=0))[1] > 1e-3).all()
