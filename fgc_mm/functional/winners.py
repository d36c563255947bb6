"""The channels that win a saliency contest."""

import math

import torch
from torch import Tensor


def count_kept(share: float, channels: int) -> int:
    """``ceil(share * channels)``, at least 1, safe from rounding.

    Args:
        share: In (0, 1].
        channels: C.
    """
    return max(1, math.ceil(share * channels - 1e-9))


def winners(saliency: Tensor, share: float) -> Tensor:
    """The ``ceil(share * C)`` largest of each row.

    Args:
        saliency: (N, C).
        share: In (0, 1].

    Returns:
        (N, C) bool; exactly so many per row, earlier channels first among
        equals.

    Source: FBS (ICLR 2019), Eq. 6.
    """
    count = count_kept(share, saliency.shape[1])
    order = saliency.argsort(dim=1, descending=True, stable=True)
    won = torch.zeros_like(saliency, dtype=torch.bool)
    return won.scatter(1, order[:, :count], True)
