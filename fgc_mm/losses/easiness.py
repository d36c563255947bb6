"""Easiness of images, from their cross entropy."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fgc_mm.memory.epoch_mean import EpochMean


class Easiness(nn.Module):
    """``(c - ce) / c`` for images with a cross entropy below c, else 0.

    c, the buffer ``bound``, is half the mean cross entropy of the last
    epoch (ManiDP, CVPR 2021, Eq. 5, 6). In the first epoch no image is easy,
    unless the run starts from the weights of one with this loss.
    With independent labels, an image's cross entropy is the sum over its
    binary labels. The bound is the same on all ranks, and saved in
    checkpoints.
    """

    bound: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer('bound', torch.zeros((), dtype=torch.float64))
        self._mean = EpochMean(self)

    def forward(
        self,
        scores: Tensor,
        labels: Tensor,
        epoch: int,
        independent: bool = False,
    ) -> Tensor:
        """Weights of a batch's images; adds their cross entropy to the mean.

        Args:
            scores: (N, classes) before softmax or sigmoid.
            labels: (N,) classes, or (N, classes) weights.
            epoch: Finished epochs.
            independent: Whether the labels are independent; then they are
                (N, classes).

        Returns:
            (N,) in [0, 1], without gradient.
        """
        scores = scores.detach().float()
        entropy = _entropy(scores, labels, independent)
        ended = self._mean.start_epoch(epoch)
        if ended is not None:
            self.bound.copy_(ended / 2)
        self._mean.add(entropy)
        bound = self.bound.to(entropy)
        # in the first epoch the bound is 0, and no entropy is below it
        return ((bound - entropy) / bound.clamp(min=1e-12)).clamp(min=0)


def _entropy(scores: Tensor, labels: Tensor, independent: bool) -> Tensor:
    """The cross entropy of each image; (N,)."""
    if not independent:
        return F.cross_entropy(scores, labels, reduction='none')
    entropy = F.binary_cross_entropy_with_logits
    return entropy(scores, labels.to(scores), reduction='none').sum(dim=1)
