"""The mean over an epoch of what a module says of each image."""

from typing import Any

import torch
from torch import Tensor, nn

from fgc_mm.functional.reduce import sum_over_ranks


class EpochMean:
    """The mean over an epoch's images, those of all ranks.

    What it has summed up so far are buffers of the module that it serves:
    the same on every rank, and in the checkpoint under that module's names,
    so that a run which resumes in mid-epoch goes on.

    Args:
        owner: Gets the buffers ``images``, ``epoch``, and the sum.
        shape: Of what is said of one image.
        total: The sum's name.
    """

    def __init__(
        self,
        owner: nn.Module,
        shape: tuple[int, ...] = (),
        total: str = 'total',
    ) -> None:
        self._owner = owner
        self._total = total
        owner.register_buffer(total, torch.zeros(shape, dtype=torch.float64))
        owner.register_buffer('images', torch.zeros((), dtype=torch.float64))
        owner.register_buffer('epoch', torch.zeros((), dtype=torch.long))
        # beside the buffer, which may lie on a GPU: no wait in every step
        self._epoch: int | None = None
        owner.register_load_state_dict_post_hook(self._reread)

    def start_epoch(self, epoch: int) -> Tensor | None:
        """Begin an epoch, unless it has begun.

        Args:
            epoch: Finished epochs.

        Returns:
            The mean of the epoch that has ended, float64 (0 if it had no
            image); ``None`` within an epoch.
        """
        owner = self._owner
        if self._epoch is None:
            self._epoch = int(owner.epoch)
        if epoch == self._epoch:
            return None
        total = getattr(owner, self._total)
        mean = total / owner.images.clamp(min=1)
        total.zero_()
        owner.images.zero_()
        owner.epoch.fill_(epoch)
        self._epoch = epoch
        return mean

    def add(self, values: Tensor) -> None:
        """Note a batch; all ranks must call, each with its images.

        Args:
            values: (N, *shape), without gradient.
        """
        count = values.new_full((1,), len(values))
        sums = torch.cat([values.sum(dim=0).reshape(-1), count])
        sums = sum_over_ranks(sums.double())
        total = getattr(self._owner, self._total)
        total += sums[:-1].reshape(total.shape)
        self._owner.images += sums[-1]

    def _reread(self, *_: Any) -> None:
        self._epoch = None
