"""Mean of a module's values over the images of an epoch."""

from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist


class EpochMean:
    """Mean over an epoch's images, on all ranks.

    The running sums are buffers of the owner module: the same on every rank,
    and saved in checkpoints under the owner's names, so that a run resumed
    within an epoch continues correctly.

    Args:
        owner: Gets the buffers ``images``, ``epoch``, and the sum.
        shape: Shape of an image's value.
        total: Name of the sum's buffer.
    """

    def __init__(
        self,
        owner: nn.Module,
        shape: tuple[int, ...] = (),
        total: str = 'total',
    ) -> None:
        self._owner: Any = owner  # has the buffers
        self._total = total
        owner.register_buffer(total, torch.zeros(shape, dtype=torch.float64))
        owner.register_buffer('images', torch.zeros((), dtype=torch.float64))
        owner.register_buffer('epoch', torch.zeros((), dtype=torch.long))
        # a copy of the buffer on the host, to avoid synchronisation
        self._epoch: int | None = None
        owner.register_load_state_dict_post_hook(self._reread)

    def start_epoch(self, epoch: int) -> Tensor | None:
        """Start an epoch, unless it has started.

        Args:
            epoch: Finished epochs.

        Returns:
            The mean of the previous epoch, float64 (0 if it had no images);
            ``None`` within an epoch.
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

    def end_epoch(self) -> None:
        """Make the next epoch another one, whatever its number.

        For a run that starts from the weights of another run, whose last
        epoch may have had the same number.
        """
        self._owner.epoch.fill_(-1)
        self._epoch = -1

    def add(self, values: Tensor) -> None:
        """Add a batch; collective, each rank with its images.

        Args:
            values: (N, *shape), without gradient.
        """
        # the mean of equal float32 values is exactly that value
        values = values.double()
        count = values.new_full((1,), len(values))
        sums = torch.cat([values.sum(dim=0).reshape(-1), count])
        if dist.is_initialized():
            dist.all_reduce(sums)
        total = getattr(self._owner, self._total)
        total += sums[:-1].reshape(total.shape)
        self._owner.images += sums[-1]

    def _reread(self, *_: Any) -> None:
        self._epoch = None
