"""Neighbours with the same label (FGC, arXiv 2111.14302, Table 4)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fgc_mm.errors import FGCError


class LabelNeighbors:
    """Random images of the same class.

    Args:
        labels: (D,) class of every training image; see
            :meth:`single_labels`.
        num_neighbors: K.

    Raises:
        FGCError: A class has fewer than K + 1 images.
    """

    def __init__(self, labels: Tensor, num_neighbors: int) -> None:
        self.labels = labels.long()
        self.num_neighbors = num_neighbors
        order = self.labels.argsort(stable=True)
        counts = torch.bincount(self.labels)
        self.rows = order.split(counts.tolist())
        smallest = int(counts[counts > 0].min())
        if smallest <= num_neighbors:
            raise FGCError(
                f'num_neighbors={num_neighbors} random images of the same '
                f'class are needed, but a class has {smallest} images; '
                'set a smaller num_neighbors, or another neighbor_source.'
            )

    @staticmethod
    def single_labels(labels: Sequence[Any]) -> Tensor:
        """The labels of all images as (D,), if each has exactly one.

        Args:
            labels: A number per image, or a sequence with one number.

        Raises:
            FGCError: An image has none, several, or one per task.
        """
        for index, label in enumerate(labels):
            if _class_of(label) is None:
                raise FGCError(
                    "neighbor_source='label' draws images of the same "
                    f'class, but image {index} of the training set has the '
                    f'labels {label!r:.60}, not exactly one; set '
                    "neighbor_source='feature'."
                )
        return torch.tensor([_class_of(label) for label in labels])

    def __call__(self, indices: Tensor) -> Tensor:
        """Draw K distinct rows per image (N,), without its own; (N, K)."""
        neighbors = indices.new_empty(len(indices), self.num_neighbors)
        classes = self.labels[indices]
        for label in classes.unique().tolist():
            chosen = classes == label
            neighbors[chosen] = self._draw(label, indices[chosen])
        return neighbors

    def _draw(self, label: int, indices: Tensor) -> Tensor:
        rows = self.rows[label]
        keys = torch.rand(len(indices), len(rows))
        keys[rows[None] == indices[:, None]] = -1
        return rows[keys.topk(self.num_neighbors, dim=1).indices]


def _class_of(label: Any) -> int | None:
    """The class, if a label is one number or a sequence of one."""
    values = np.asarray(label)
    single = values.dtype.kind in 'iu' and values.size == 1
    return int(values.reshape(())) if single else None
