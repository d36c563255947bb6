"""What a place of a cut network has shown, and whether that has changed."""

import torch
from torch import Tensor

from fgc_mm.errors import FGCError


class BrokenProbe(FGCError):
    """The network runs, but not with the change that was tried."""


class Seen:
    """What a place has shown in the first pass.

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


def flat_maps(x: Tensor) -> Tensor:
    """(N, C, *) -> (N, C, L)."""
    return x.flatten(2) if x.dim() > 2 else x.unsqueeze(-1)


def differ(now: Tensor, before: Seen) -> Tensor:
    """Where a place shows another number; two NaN are the same.

    Args:
        now: (N, C, L).
        before: What the place has shown at first.

    Returns:
        (N, C, L), bool.

    Raises:
        BrokenProbe: The shapes are not the same.
    """
    if now.shape != before.maps.shape:
        raise BrokenProbe(
            f'A map has the shape {(*now.shape,)} in one pass and '
            f'{(*before.maps.shape,)} in another; it must be the same.'
        )
    differs = torch.ne(now, before.maps)
    if before.nan is not None:
        differs &= ~(before.nan & now.isnan())
    return differs
