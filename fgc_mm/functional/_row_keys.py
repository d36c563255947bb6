"""Scores and row indices in one int64 key, for sorting by both."""

import torch
from torch import Tensor

LOW = 0xFFFFFFFF  # all of the lower 32 bits


def keys(scores: Tensor, index: Tensor) -> Tensor:
    """int64 keys in the order of (score descending, index ascending)."""
    return pack(scores, LOW - index)


def pack(scores: Tensor, low: Tensor) -> Tensor:
    """int64 keys: scores in the upper, ``low`` in the lower 32 bits."""
    # The bits of a float compare like an integer if those of negative floats
    # are flipped; adding 0 makes -0.0 equal to 0.0.
    bits = (scores + 0.0).view(torch.int32)
    bits = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return torch.add(low, bits, alpha=LOW + 1)


def rows_of_keys(keys: Tensor) -> Tensor:
    """The row indices in keys of :func:`nearest_keys`."""
    return LOW - (keys & LOW)


def descending(start: int, count: int, like: Tensor) -> Tensor:
    """start, start - 1, ...; (count,)."""
    return torch.arange(start, start - count, -1, device=like.device)
