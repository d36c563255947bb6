"""Sums over all ranks of a distributed run."""

import torch.distributed as dist
from torch import Tensor


def sum_over_ranks(value: Tensor) -> Tensor:
    """All-reduce sum of a tensor; without ranks, the tensor itself.

    Args:
        value: Of the same shape on every rank; without gradient. Collective:
            all ranks must call it, in the same order.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return value
    if dist.get_world_size() > 1:
        value = value.clone()
        dist.all_reduce(value)
    return value
