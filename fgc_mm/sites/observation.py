"""Baseline observations at probe points, and comparison with them."""

import torch
from torch import Tensor

from fgc_mm.errors import FGCError
from fgc_mm.functional.pooling import flat_maps


class BrokenProbe(FGCError):
    """The network runs, but fails with the change under test."""


class Observation:
    """What was observed at a probe point in the first pass.

    Args:
        x: (N, C, *).

    Attributes:
        channels: C.
        maps: (N, C, L), a copy.
        nan: Where the maps are NaN; ``None`` if nowhere.
    """

    def __init__(self, x: Tensor) -> None:
        self.channels = x.shape[1]
        self.maps = flat_maps(x).clone()
        nan = self.maps.isnan()
        self.nan = nan if nan.any() else None


def differ(now: Tensor, before: Observation) -> Tensor:
    """Where values (N, C, L) differ from the first pass; two NaN are equal.

    Raises:
        BrokenProbe: The shapes differ.
    """
    if now.shape != before.maps.shape:
        raise BrokenProbe(
            f'A map has shape {(*now.shape,)} in one pass and '
            f'{(*before.maps.shape,)} in another; it must be the same.'
        )
    differs = torch.ne(now, before.maps)
    if before.nan is not None:
        differs &= ~(before.nan & now.isnan())
    return differs
