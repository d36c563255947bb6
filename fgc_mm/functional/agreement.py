"""Agreement of two sets of neighbours."""

import torch
from torch import Tensor

from fgc_mm.errors import FGCError


def neighborhood_agreement(first: Tensor, second: Tensor) -> Tensor:
    """Mean fraction of neighbours that two index sets have in common.

    Args:
        first: (N, k) int64, distinct within a row.
        second: (N, k) int64, distinct within a row.

    Returns:
        () float32 in [0, 1]: 1 if each row has the same indices, in any
        order.

    Raises:
        FGCError: the shapes differ, or are not (N, k).
    """
    if first.shape != second.shape or first.ndim != 2 or not first.numel():
        raise FGCError(
            f'neighbour sets have shapes {tuple(first.shape)} and '
            f'{tuple(second.shape)}, but both must be the same (N, k): '
            'search both spaces with the same queries and num_neighbors'
        )
    ordered = second.sort(1).values
    position = torch.searchsorted(ordered, first.contiguous())
    position.clamp_(max=first.shape[1] - 1)
    return (ordered.gather(1, position) == first).float().mean()
