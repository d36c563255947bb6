"""Random crop and flip of a batch of images at once."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad


def crop_and_flip(
    images: Tensor, draws: Tensor, padding: int, flip: float
) -> Tensor:
    """Pad each image with zeros, crop it to its size and flip it at random.

    The same as ``RandomCrop(crop_size=(H, W), padding=padding)`` and
    ``RandomFlip(prob=flip)`` of mmpretrain, which process single images.

    Args:
        images: (N, H, W, C).
        draws: (N, 3) uniform in [0, 1): row and column of the crop, flip.
        padding: Pixels added on every side before the crop.
        flip: Probability of a horizontal flip.

    Returns:
        (N, H, W, C), a new tensor.
    """
    count, height, width, _ = images.shape
    padded = pad(images, (0, 0, padding, padding, padding, padding))
    offsets = (draws[:, :2] * (2 * padding + 1)).long()
    device = images.device
    rows = offsets[:, :1] + torch.arange(height, device=device)
    steps = torch.arange(width, device=device)
    flipped = draws[:, 2:] < flip
    columns = offsets[:, 1:] + torch.where(flipped, width - 1 - steps, steps)
    image = torch.arange(count, device=device)[:, None, None]
    return padded[image, rows[:, :, None], columns[:, None, :]]
