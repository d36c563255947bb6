"""Agreement of clusters of features and clusters of gates. (Fig. 10)"""

import warnings
from typing import NamedTuple

import numpy as np
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import (
    adjusted_mutual_info_score,
    normalized_mutual_info_score,
)
from threadpoolctl import threadpool_limits

from ...errors import FGCError

STARTS = 10


class ClusterAgreement(NamedTuple):
    """Mutual information of two clusterings of the same images.

    Attributes:
        nmi: Normalised mutual information of feature and gate clusters, in
            [0, 1], as in the paper; it is above 0 for random clusters too.
        ami: The same adjusted for chance: 0 on average for random clusters.
        features_labels: NMI of feature clusters and classes.
        gates_labels: NMI of gate clusters and classes.
    """

    nmi: float
    ami: float
    features_labels: float
    gates_labels: float


def cluster(vectors: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    """K-means clusters; the best of ten starts.

    Args:
        vectors: (N, C).
        clusters: Number of clusters.
        seed: Equal seeds give equal clusters.

    Returns:
        (N,) cluster numbers. There are fewer clusters if there are fewer
        distinct vectors, as for gates with equal outputs for all images.

    Raises:
        FGCError: More clusters than vectors, or fewer than two.
    """
    if not 2 <= clusters <= len(vectors):
        raise FGCError(
            f'--clusters {clusters} does not fit {len(vectors)} images: '
            'K-means needs at least 2 clusters and as many images as '
            'clusters; give more --images or another number.'
        )
    kmeans = KMeans(clusters, n_init=STARTS, random_state=seed)
    # one thread, so that sums are always computed in the same order
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter('ignore', ConvergenceWarning)
        return kmeans.fit_predict(np.asarray(vectors, dtype=np.float64))


def cluster_agreement(
    features: np.ndarray,
    gates: np.ndarray,
    labels: np.ndarray,
    clusters: int,
    seed: int = 0,
) -> ClusterAgreement:
    """Mutual information of the clusters of features and those of gates.

    Source: "Feature-Gate Coupling for Dynamic Network Pruning" (arXiv
    2111.14302), Fig. 10.

    Args:
        features: (N, C) pooled activations of a site.
        gates: (N, C) gate vectors of the site.
        labels: (N,) classes.
        clusters: Number of clusters of features, and of gates.
        seed: Seed of K-means.

    Raises:
        FGCError: As :func:`cluster`.
    """
    by_feature = cluster(features, clusters, seed)
    by_gate = cluster(gates, clusters, seed)
    return ClusterAgreement(
        float(normalized_mutual_info_score(by_feature, by_gate)),
        float(adjusted_mutual_info_score(by_feature, by_gate)),
        float(normalized_mutual_info_score(labels, by_feature)),
        float(normalized_mutual_info_score(labels, by_gate)),
    )
