"""The channels that win a saliency contest."""

import math

import torch
from torch import Tensor


def num_kept_channels(share: float, channels: int) -> int:
    """``ceil(share * channels)``, at least 1, safe from rounding.

    Args:
        share: In (0, 1].
        channels: C.
    """
    return max(1, math.ceil(share * channels - 1e-9))


def topk_mask(saliency: Tensor, share: float | Tensor) -> Tensor:
    """The ``ceil(share * C)`` largest of each row.

    Args:
        saliency: (N, C).
        share: In (0, 1]; a float64 tensor () for one that moves, which
            nothing reads on the host and nothing is compiled anew for.

    Returns:
        (N, C) bool; exactly so many per row, earlier channels first among
        equals.

    Source: FBS (ICLR 2019), Eq. 6.
    """
    channels = saliency.shape[1]
    order = saliency.argsort(dim=1, descending=True, stable=True)
    won = torch.zeros_like(saliency, dtype=torch.bool)
    if not isinstance(share, Tensor):
        return won.scatter(
            1, order[:, : num_kept_channels(share, channels)], True
        )
    count = (share * channels - 1e-9).ceil().clamp(min=1)
    first = torch.arange(channels, device=saliency.device) < count
    return won.scatter(1, order, first.expand(order.shape))
