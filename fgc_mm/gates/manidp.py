"""The gate of ManiDP: saliencies above a threshold of their layer."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fgc_mm.errors import FGCError
from fgc_mm.functional.pooling import global_average_pool
from fgc_mm.functional.reduce import sum_over_ranks
from fgc_mm.functional.schedule import Progress
from fgc_mm.functional.winners import count_kept
from fgc_mm.gates.checks import share_of_channels
from fgc_mm.gates.decision import ScalingDecision
from fgc_mm.registry import MODELS


@MODELS.register_module()
class ManiDPGate(nn.Module):
    """Squeeze, ReLU, expand, ReLU; what reaches the threshold scales.

    The threshold of a layer is the ``ceil(keep * C)``-th largest of its
    channels' mean saliencies over the last epoch, so an image may open more
    channels than another ("Manifold regularized dynamic network pruning",
    CVPR 2021, Eq. 2, 3 and section 3.4).

    Args:
        in_channels: Channels of the input.
        out_channels: Channels to open and close (C). The hidden layer has
            C / 2 units, C / 4 where C is below 80.
        keep: Share of the channels whose mean saliency reaches the
            threshold, in (0, 1]: a number, or a schedule, as in
            ``dict(start_value=1.0, end_value=0.5, begin=0, end=300,
            curve='cosine')``.

    Shapes: (N, in_channels, H, W) -> four times (N, C), float32. The logits
    are the linear outputs above the threshold.

    Raises:
        FGCError: A keep outside (0, 1]; training without
            ``LossProgressHook``, which tells when an epoch ends.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        keep: float | Mapping[str, Any] = 0.5,
    ) -> None:
        super().__init__()
        self.keep = share_of_channels(keep, 'keep', 'ManiDPGate')
        self.progress: Progress | None = None
        hidden = max(1, out_channels // (4 if out_channels < 80 else 2))
        self.squeeze = nn.Linear(in_channels, hidden, bias=False)
        self.act = nn.ReLU(inplace=True)
        self.expand = nn.Linear(hidden, out_channels)
        nn.init.ones_(self.expand.bias)
        # the same on every rank, and in the checkpoint
        self.register_buffer('threshold', torch.zeros(()))
        self.register_buffer('epoch', torch.zeros((), dtype=torch.long))
        self.register_buffer(
            'saliency_sum', torch.zeros(out_channels, dtype=torch.float64)
        )
        self.register_buffer('images', torch.zeros((), dtype=torch.float64))
        # beside the buffer, which may lie on a GPU: no wait in every step
        self._epoch: int | None = None

    def forward(self, x: Tensor) -> ScalingDecision:
        """Decide for every image of the batch."""
        hidden = self.act(self.squeeze(global_average_pool(x)))
        linear = self.expand(hidden).float()
        saliency = linear.relu()
        if self.training:
            self._follow(saliency.detach())
        logits = linear - self.threshold
        opened = saliency >= self.threshold
        return ScalingDecision(
            logits, logits.sigmoid(), saliency * opened, saliency
        )

    def _follow(self, saliency: Tensor) -> None:
        """Turn the page where an epoch begins, and note the batch."""
        if self.progress is None:
            raise FGCError(
                'ManiDPGate sets its threshold anew in every epoch and '
                "nobody says which it is; add dict(type='fgc_mm."
                "LossProgressHook') to custom_hooks."
            )
        if self._epoch is None:
            self._epoch = int(self.epoch)
        if self.progress.epoch != self._epoch:
            self._refresh()
        count = saliency.new_full((1,), len(saliency))
        sums = sum_over_ranks(torch.cat([saliency.sum(dim=0), count]).double())
        self.saliency_sum += sums[:-1]
        self.images += sums[-1]

    def _refresh(self) -> None:
        means = self.saliency_sum / self.images.clamp(min=1)
        keep = self.keep.at(self.progress)
        count = count_kept(keep, len(means))
        self.threshold.copy_(means.sort(descending=True).values[count - 1])
        if keep == 1:
            self.threshold.zero_()  # all are asked for, on every image
        self._epoch = self.progress.epoch
        self.epoch.fill_(self._epoch)
        self.saliency_sum.zero_()
        self.images.zero_()
