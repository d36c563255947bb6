"""Nearest images in feature space and in gate space. (Fig. 9)"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from ...errors import FGCError
from ...functional import nearest_neighbors, neighborhood_agreement


class NeighborAgreement(NamedTuple):
    """How far the neighbourhoods of a site's two spaces agree.

    Attributes:
        common: Share of the K nearest images in feature space that are
            among the K nearest in gate space, mean over the images.
        chance: The same for neighbours drawn at random.
        same_class_features: Share of the K nearest images in feature space
            that have the image's own class.
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
        queries: (Q,) numbers of the query images.
        k: How many, below N.

    Returns:
        (Q, k) numbers of images.

    Raises:
        FGCError: As many neighbours as images, or none.
    """
    if not 0 < k < len(vectors):
        raise FGCError(
            f'{k} neighbours of an image cannot be found among '
            f'{len(vectors)} images: there must be at least one, and fewer '
            'than images; give more --images or fewer --neighbors.'
        )
    rows = torch.from_numpy(unit_rows(vectors))
    chosen = torch.from_numpy(np.array(queries, dtype=np.int64))
    return nearest_neighbors(rows[chosen], rows, k, chosen).numpy()


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """(N, C) float32 rows of length 1; rows of zeros stay so."""
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
        queries: (Q,) numbers of the images whose neighbours are compared.
        k: Neighbours of each.

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
