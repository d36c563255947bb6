"""How easy an image is, by its cross entropy."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fgc_mm.memory.epoch_mean import EpochMean


class Easiness(nn.Module):
    """``(c - ce) / c`` for images with a cross entropy below c, else 0.

    c is half the mean cross entropy of the last epoch; in the first epoch,
    which has none before it, nothing is easy (ManiDP, CVPR 2021, Eq. 5, 6).
    Where every class is a label of its own, an image's cross entropy is the
    sum of its labels' binary ones.
    The same on every rank, and in the checkpoint.
    """

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
        """Weigh the images of a batch, and note their cross entropy.

        Args:
            scores: (N, classes) before the softmax, or the sigmoids.
            labels: (N,) classes, or (N, classes) shares of them.
            epoch: Finished epochs.
            independent: Whether each class is a label of its own; then
                labels are (N, classes).

        Returns:
            (N,) in [0, 1], without gradient.
        """
        scores = scores.detach().float()
        entropy = _entropy(scores, labels, independent)
        ended = self._mean.turn(epoch)
        if ended is not None:
            self.bound.copy_(ended / 2)
        self._mean.add(entropy)
        bound = self.bound.to(entropy)
        # a bound of 0, in the first epoch: no entropy is below it
        return ((bound - entropy) / bound.clamp(min=1e-12)).clamp(min=0)


def _entropy(scores: Tensor, labels: Tensor, independent: bool) -> Tensor:
    """The cross entropy of each image; (N,)."""
    if not independent:
        return F.cross_entropy(scores, labels, reduction='none')
    each = F.binary_cross_entropy_with_logits(
        scores, labels.to(scores), reduction='none'
    )
    return each.sum(dim=1)
