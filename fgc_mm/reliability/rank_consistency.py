"""Checks that all ranks have the same numbers."""

from typing import NamedTuple

import torch
from mmengine.dist import all_gather, get_world_size
from torch import Tensor


class Difference(NamedTuple):
    """A number that differs between two ranks.

    Attributes:
        rank: The first rank that differs from rank 0.
        position: Index of the number in the vector.
        value: The number on that rank.
        expected: The number on rank 0.
    """

    rank: int
    position: int
    value: float
    expected: float


def find_difference(own: Tensor) -> Difference | None:
    """Compares a vector of every rank with that of rank 0, by one collective.

    Args:
        own: (N,) on the device of the process group's tensors; all ranks
            call this with the same N.

    Returns:
        The first difference, the same on all ranks; None if there is none.
    """
    if get_world_size() == 1:
        return None
    table = torch.stack(all_gather(own))
    different = (table != table[0]).nonzero().tolist()
    if not different:
        return None
    rank, position = different[0]
    value, expected = table[[rank, 0], position].tolist()
    return Difference(rank, position, value, expected)
