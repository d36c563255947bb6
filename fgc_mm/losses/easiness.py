"""How easy an image is, by its cross entropy."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fgc_mm.functional.reduce import sum_over_ranks


class Easiness(nn.Module):
    """``(c - ce) / c`` for images with a cross entropy below c, else 0.

    c is half the mean cross entropy of the last epoch; in the first epoch,
    which has none before it, nothing is easy (ManiDP, CVPR 2021, Eq. 5, 6).
    The same on every rank, and in the checkpoint.
    """

    def __init__(self) -> None:
        super().__init__()
        for name in ('bound', 'total', 'images', 'epoch'):
            start = torch.zeros((), dtype=torch.float64)
            self.register_buffer(name, start)
        self._epoch: int | None = None

    def forward(self, scores: Tensor, labels: Tensor, epoch: int) -> Tensor:
        """Weigh the images of a batch, and note their cross entropy.

        Args:
            scores: (N, classes) before the softmax.
            labels: (N,) classes, or (N, classes) shares of them.
            epoch: Finished epochs.

        Returns:
            (N,) in [0, 1], without gradient.
        """
        scores = scores.detach().float()
        entropy = F.cross_entropy(scores, labels, reduction='none')
        if self._epoch is None:
            self._epoch = int(self.epoch)
        if epoch != self._epoch:
            self._turn(epoch)
        sums = torch.stack([entropy.sum(), entropy.new_tensor(len(entropy))])
        sums = sum_over_ranks(sums.double())
        self.total += sums[0]
        self.images += sums[1]
        bound = self.bound.to(entropy)
        # a bound of 0, in the first epoch: no entropy is below it
        return ((bound - entropy) / bound.clamp(min=1e-12)).clamp(min=0)

    def _turn(self, epoch: int) -> None:
        """A new epoch: half of the mean of the one that has ended."""
        self.bound.copy_(self.total / self.images.clamp(min=1) / 2)
        self.total.zero_()
        self.images.zero_()
        self._epoch = epoch
        self.epoch.fill_(epoch)
