"""Masks of the largest entries."""

import math

import torch
from torch import Tensor


def num_kept_channels(share: float, channels: int) -> int:
    """``ceil(share * channels)``, at least 1, robust to rounding."""
    return max(1, math.ceil(share * channels - 1e-9))


def topk_mask(saliency: Tensor, share: float | Tensor) -> Tensor:
    """Mask of the ``ceil(share * C)`` largest entries of each row.

    Args:
        saliency: (N, C).
        share: In (0, 1]; a float64 tensor () if it changes during training,
            which avoids synchronisation and recompilation.

    Returns:
        (N, C) bool, with the same number of channels in each row; of equal
        entries the first ones.

    Source: FBS (ICLR 2019), Eq. 6.
    """
    channels = saliency.shape[1]
    order = saliency.argsort(dim=1, descending=True, stable=True)
    mask = torch.zeros_like(saliency, dtype=torch.bool)
    if not isinstance(share, Tensor):
        first = order[:, : num_kept_channels(share, channels)]
        return mask.scatter(1, first, True)
    count = (share * channels - 1e-9).ceil().clamp(min=1)
    first = torch.arange(channels, device=saliency.device) < count
    return mask.scatter(1, order, first.expand(order.shape))
