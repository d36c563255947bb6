"""Values of a batch for the memory banks of a coupled site."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from fgc_mm.errors import FGCError


class CoupledBatch(NamedTuple):
    """Values of one batch that will be written to the banks of a site.

    Attributes:
        indices: (N,) int64 rows.
        features: (N, C) pooled activation, float32, detached.
        gates: (N, G) gate vector, float32, detached; one entry per decision.
    """

    indices: Tensor
    features: Tensor
    gates: Tensor


def sample_indices(
    data_samples: Sequence[Any] | None, length: int
) -> list[int]:
    """Indices of the images in the training set.

    Raises:
        FGCError: A sample has no ``sample_idx``, or one outside the banks.
    """
    found = [_index_of(sample) for sample in data_samples or [{}]]
    indices = [int(index) for index in found if index is not None]
    if len(indices) < len(found):
        raise FGCError(
            'an image has no sample_idx, the index of its row in the '
            "memory banks; add 'sample_idx' to meta_keys of PackInputs in the "
            'training pipeline, and use a data set that sets sample_idx '
            '(MultiTaskDataset does not).'
        )
    if not 0 <= min(indices) <= max(indices) < length:
        wrong = next(i for i in indices if not 0 <= i < length)
        raise FGCError(
            f'sample_idx {wrong} is outside the memory bank ({length} rows, '
            'one per image of the training set); do not wrap the training '
            'set in another dataset.'
        )
    return indices


def _index_of(sample: Any) -> int | None:
    """The sample's index, or that of a task's sample inside it."""
    for part in (sample, *sample.values()):
        if hasattr(part, 'get'):
            index = part.get('sample_idx', None)
            if index is not None:
                return index
    return None
