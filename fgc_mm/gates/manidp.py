"""The gate of ManiDP: saliencies above a threshold of their layer."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fgc_mm.errors import FGCError
from fgc_mm.functional.pooling import global_average_pool
from fgc_mm.functional.schedule import Progress
from fgc_mm.functional.winners import count_kept
from fgc_mm.gates.checks import initialize_linear, share_of_channels
from fgc_mm.gates.decision import ScalingDecision
from fgc_mm.memory.epoch_mean import EpochMean
from fgc_mm.registry import MODELS

WIDTH = 'hidden_channels'


@MODELS.register_module()
class ManiDPGate(nn.Module):
    """Squeeze, ReLU, expand, ReLU; what reaches the threshold scales.

    The threshold of a layer is the ``ceil(keep * C)``-th largest of its
    channels' mean saliencies over the last epoch, so an image may open more
    channels than another ("Manifold regularized dynamic network pruning",
    CVPR 2021, Eq. 2, 3 and section 3.4).

    Args:
        in_channels: Channels of the input.
        out_channels: Channels to open and close (C).
        keep: Share of the channels whose mean saliency reaches the
            threshold, in (0, 1]: a number, or a schedule, as in
            ``dict(start_value=1.0, end_value=0.6, begin=0, end=399,
            curve='cosine')``; ``end`` is the last epoch of the training
            (counted from 0), which then has the target.
        hidden_channels: Width of the hidden layer; by default C / 2, and C
            where C is below 80 (as on all CIFAR networks).
        weight_init: Start of the two linear layers' weights: ``'torch'``, as
            ``nn.Linear`` makes them, or ``'kaiming_normal'`` (published
            code). The latter needs a dense network whose activations are
            small, as after a whole training with weight decay: saliencies
            multiply from block to block, and a ResNet-20 that had been
            trained for 200 steps overflowed in the first ones. ``'zero'``:
            the last layer's weights are 0, so that every saliency starts
            at 1 and the network as the dense one.

    Shapes: (N, in_channels, H, W) -> four times (N, C), float32. The logits
    are the linear outputs above the threshold.

    Raises:
        FGCError: A keep outside (0, 1]; training without
            ``LossProgressHook``, which sets the epoch.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        keep: float | Mapping[str, Any] = 0.5,
        hidden_channels: int | None = None,
        weight_init: str = 'torch',
    ) -> None:
        super().__init__()
        self.keep = share_of_channels(keep, 'keep', 'ManiDPGate')
        self._progress: Progress | None = None
        self._turned = False  # whether the mean follows that progress
        hidden = hidden_channels or self.widths_for(out_channels)[WIDTH]
        self.squeeze = nn.Linear(in_channels, hidden, bias=False)
        self.act = nn.ReLU(inplace=True)
        self.expand = nn.Linear(hidden, out_channels)
        initialize_linear(
            self.squeeze, self.expand, weight_init, type(self).__name__
        )
        nn.init.ones_(self.expand.bias)
        # the same on every rank, and in the checkpoint
        self.register_buffer('threshold', torch.zeros(()))
        self._mean = EpochMean(self, (out_channels,), 'saliency_sum')

    @property
    def progress(self) -> Progress | None:
        """Where the run is; a new epoch has a new threshold."""
        return self._progress

    @progress.setter
    def progress(self, progress: Progress | None) -> None:
        self._progress, self._turned = progress, False
        if self.training and progress is not None:
            self._turn()  # here, outside of what torch.compile compiles

    @staticmethod
    def widths_for(channels: int) -> dict[str, int]:
        """The settings that follow from C.

        A compacted gate keeps those of its original C.

        Source: the published code, whose squeeze rate of 2 is halved below
        80 channels.
        """
        return {WIDTH: channels if channels < 80 else channels // 2}

    def forward(self, x: Tensor) -> ScalingDecision:
        """Decide for every image of the batch."""
        hidden = self.act(self.squeeze(global_average_pool(x)))
        linear = self.expand(hidden).float()
        saliency = linear.relu()
        if self.training:
            self._follow(saliency.detach())
        logits = linear - self.threshold
        mask = saliency * (logits > 0)
        return ScalingDecision(logits, logits.sigmoid(), mask, saliency)

    def _follow(self, saliency: Tensor) -> None:
        """Set the threshold where an epoch begins; add the batch."""
        if self._progress is None:
            raise FGCError(
                'ManiDPGate has no epoch (progress=None), but sets its '
                "threshold at the start of each; add dict(type='fgc_mm."
                "LossProgressHook') to custom_hooks."
            )
        if not self._turned:
            self._turn()
        self._mean.add(saliency)

    def _turn(self) -> None:
        self._turned = True
        ended = self._mean.turn(self._progress.epoch)
        if ended is not None:
            self._refresh(ended)

    def _refresh(self, means: Tensor) -> None:
        keep = self.keep.at(self._progress)
        count = count_kept(keep, len(means))
        least = means.sort(descending=True).values[count - 1]
        # just below it, since what reaches it is open
        least = torch.nextafter(
            least.float(), -torch.ones(()).to(least.device)
        )
        self.threshold.copy_(least.clamp(min=0))
        if keep == 1:
            self.threshold.zero_()  # all are asked for, on every image
