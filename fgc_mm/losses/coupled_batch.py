"""What a batch says to the memory banks of a coupled site."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fgc_mm.errors import FGCError
from fgc_mm.functional import global_average_pool
from fgc_mm.sites import GateRecord


class CoupledBatch(NamedTuple):
    """What one batch will write into the banks of a site.

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
    """The images' places in the training set.

    Raises:
        FGCError: A sample has no ``sample_idx``, or one outside the banks.
    """
    indices = [_index_of(sample) for sample in data_samples or [{}]]
    if None in indices:
        raise FGCError(
            'an image has no sample_idx, by which the memory banks are '
            "indexed; add 'sample_idx' to meta_keys of PackInputs in the "
            'training pipeline, and take a data set that numbers its images '
            '(MultiTaskDataset does not).'
        )
    if not 0 <= min(indices) <= max(indices) < length:
        wrong = next(i for i in indices if not 0 <= i < length)
        raise FGCError(
            f'sample_idx {wrong} is outside the memory bank ({length} rows, '
            'one per image of the training set); do not wrap the training '
            'set in another dataset.'
        )
    return [int(i) for i in indices]


def _index_of(sample: Any) -> int | None:
    """Its own, or that of its first task where it holds tasks' samples."""
    for part in (sample, *sample.values()):
        if hasattr(part, 'get'):
            index = part.get('sample_idx', None)
            if index is not None:
                return index
    return None


def coupled_batch(
    record: GateRecord, gate: Tensor, indices: Tensor
) -> CoupledBatch:
    """Pooled activation and gate vector of a site, ready to be written."""
    features = global_average_pool(record.activation.detach().float())
    return CoupledBatch(indices, features, gate.detach())


def side_by_side(batches: Sequence[CoupledBatch]) -> CoupledBatch:
    """Several sites' batches of the same images as one of all channels."""
    if len(batches) == 1:
        return batches[0]
    _, features, gates = zip(*batches, strict=True)
    return CoupledBatch(
        batches[0].indices, torch.cat(features, 1), torch.cat(gates, 1)
    )
