"""Nearest images in feature space and in gate space. (Fig. 9)"""

from typing import NamedTuple

import numpy as np
import torch

from ...errors import FGCError
from ...functional import nearest_neighbors, neighborhood_agreement


class NeighborAgreement(NamedTuple):
    """Agreement of the neighbours in feature space and in gate space.

    Attributes:
        common: Fraction of the K nearest images in feature space that are
            among the K nearest in gate space, mean over the images.
        chance: The same for neighbours drawn at random.
        same_class_features: Fraction of the K nearest images in feature
            space that have the class of the image.
        same_class_gates: The same in gate space.
        same_class_chance: The same for neighbours drawn at random.
    """

    common: float
    chance: float
    same_class_features: float
    same_class_gates: float
    same_class_chance: float


def nearest_images(
    vectors: np.ndarray, queries: np.ndarray, k: int
) -> np.ndarray:
    """The k images with the largest cosine similarity, best first.

    Among equal similarities the lower number comes first; the query itself
    is left out.

    Args:
        vectors: (N, C).
        queries: (Q,) indices of the query images.
        k: Number of neighbours, below N.

    Returns:
        (Q, k) indices of images.

    Raises:
        FGCError: ``k`` is not between 1 and N - 1.
    """
    if not 0 < k < len(vectors):
        raise FGCError(
            f'--neighbors {k} does not fit {len(vectors)} images: an image '
            'has at least one neighbour and fewer than there are images; '
            'give more --images or another number.'
        )
    rows = torch.from_numpy(unit_rows(vectors))
    chosen = torch.from_numpy(np.array(queries, dtype=np.int64))
    return nearest_neighbors(rows[chosen], rows, k, chosen).numpy()


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """(N, C) float32 rows of length 1; rows of zeros stay zeros."""
    rows = np.array(vectors, dtype=np.float32)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.maximum(length, np.finfo(np.float32).tiny)


def neighbor_agreement(
    features: np.ndarray,
    gates: np.ndarray,
    labels: np.ndarray,
    queries: np.ndarray,
    k: int,
) -> NeighborAgreement:
    """Common neighbours, and neighbours of the same class.

    Args:
        features: (N, C).
        gates: (N, C).
        labels: (N,) classes.
        queries: (Q,) indices of the images whose neighbours are compared.
        k: Number of neighbours.

    Raises:
        FGCError: As :func:`nearest_images`.
    """
    labels = np.asarray(labels)
    found = [nearest_images(space, queries, k) for space in (features, gates)]
    common = neighborhood_agreement(*map(torch.from_numpy, found))
    own = labels[queries][:, None]
    of_features, of_gates = (
        float((labels[rows] == own).mean()) for rows in found
    )
    others = np.bincount(labels)[labels[queries]] - 1
    return NeighborAgreement(
        float(common),
        k / (len(labels) - 1),
        of_features,
        of_gates,
        float(others.mean() / (len(labels) - 1)),
    )
