"""The gate of ManiDP."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fgc_mm.errors import FGCError
from fgc_mm.functional.pooling import global_average_pool
from fgc_mm.functional.schedule import Progress
from fgc_mm.functional.topk_mask import num_kept_channels
from fgc_mm.gates.checks import (
    channel_fraction,
    check_width,
    initialize_linear,
)
from fgc_mm.gates.decision import ScalingDecision
from fgc_mm.memory.epoch_mean import EpochMean
from fgc_mm.registry import MODELS


@MODELS.register_module()
class ManiDPGate(nn.Module):
    """Squeeze, ReLU, expand, ReLU; saliencies above a threshold scale.

    The threshold of a layer is the ``ceil(keep * C)``-th largest of its
    channels' mean saliencies in the last epoch, so the number of open
    channels differs between images ("Manifold regularized dynamic network
    pruning", CVPR 2021, Eq. 2, 3 and section 3.4). With ``keep=1`` it is 0
    instead of the smallest mean, so that every saliency above 0 is open.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels to open and close (C).
        keep: Fraction of channels whose mean saliency reaches the threshold,
            in (0, 1]: a number, or a schedule, as in ``dict(start_value=1.0,
            end_value=0.6, begin=0, end=399, curve='cosine')``. With ``end``
            the last epoch (counted from 0), that epoch has the target.
        hidden_channels: Width of the hidden layer; default: C if C is below
            80 (as in all CIFAR networks), otherwise C / 2.
        weight_init: Initialisation of the two linear layers' weights.
            ``'torch'``: the default of ``nn.Linear``. ``'kaiming_normal'``
            (published code): needs a dense network with small activations,
            as after a full training with weight decay, because saliencies
            multiply from block to block; a ResNet-20 trained for only 200
            steps overflowed at once. ``'zero'``: the last layer's weights
            are 0, so that all saliencies are 1 at first and the network
            starts as the dense one.

    Shapes: (N, in_channels, H, W) -> four times (N, C), float32. The logits
    are the linear outputs minus the threshold.

    Raises:
        FGCError: ``keep`` is outside (0, 1]; in training: there is no
            ``LossProgressHook``, which sets the epoch.

    Example:
        >>> import torch
        >>> gate = ManiDPGate(in_channels=3, out_channels=8).eval()
        >>> decision = gate(torch.randn(2, 3, 16, 16))
        >>> decision.saliency.shape
        torch.Size([2, 8])
    """

    threshold: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        keep: float | Mapping[str, Any] = 0.5,
        hidden_channels: int | None = None,
        weight_init: str = 'torch',
    ) -> None:
        super().__init__()
        self.keep = channel_fraction(keep, 'keep', 'ManiDPGate')
        self._progress: Progress | None = None
        self._epoch_started = False  # for the epoch of progress
        hidden = hidden_channels
        if hidden is None:
            hidden = self.widths_for(out_channels)['hidden_channels']
        check_width(hidden, 'ManiDPGate')
        self.squeeze = nn.Linear(in_channels, hidden, bias=False)
        self.act = nn.ReLU(inplace=True)
        self.expand = nn.Linear(hidden, out_channels)
        initialize_linear(self.squeeze, self.expand, weight_init, 'ManiDPGate')
        nn.init.ones_(self.expand.bias)
        # the same on all ranks, and saved in checkpoints
        self.register_buffer('threshold', torch.zeros(()))
        self._mean = EpochMean(self, (out_channels,), 'saliency_sum')

    @property
    def progress(self) -> Progress | None:
        """Progress of the training; each epoch has a new threshold."""
        return self._progress

    @progress.setter
    def progress(self, progress: Progress | None) -> None:
        self._progress, self._epoch_started = progress, False
        if self.training and progress is not None:
            # here, since forward may be compiled
            self._start_epoch(progress)

    @staticmethod
    def widths_for(channels: int) -> dict[str, int]:
        """The settings that depend on C; a compacted gate keeps its own.

        Source: the published code, whose squeeze rate of 2 is halved below
        80 channels.
        """
        width = channels if channels < 80 else channels // 2
        return dict(hidden_channels=width)

    def forward(self, x: Tensor) -> ScalingDecision:
        """Decide for every image of the batch."""
        hidden = self.act(self.squeeze(global_average_pool(x)))
        linear = self.expand(hidden).float()
        saliency = linear.relu()
        if self.training:
            self._update(saliency.detach())
        logits = linear - self.threshold
        mask = saliency * (logits > 0)
        return ScalingDecision(logits, logits.sigmoid(), mask, saliency)

    def _update(self, saliency: Tensor) -> None:
        """Update the threshold in a new epoch; add the batch to the mean."""
        if self._progress is None:
            raise FGCError(
                'ManiDPGate has no epoch (progress=None), but updates its '
                "threshold once per epoch; add dict(type='fgc_mm."
                "LossProgressHook') to custom_hooks."
            )
        if not self._epoch_started:
            self._start_epoch(self._progress)
        # a pass without gradients is no training step (PreciseBNHook)
        if torch.is_grad_enabled():
            self._mean.add(saliency)

    def _start_epoch(self, progress: Progress) -> None:
        self._epoch_started = True
        ended = self._mean.start_epoch(progress.epoch)
        if ended is not None:
            self._set_threshold(ended)

    def _set_threshold(self, means: Tensor) -> None:
        keep = self.keep.at(self._progress)
        count = num_kept_channels(keep, len(means))
        least = means.sort(descending=True).values[count - 1]
        # just below it, so that a saliency equal to it is open
        least = torch.nextafter(
            least.float(), -torch.ones_like(self.threshold)
        )
        self.threshold.copy_(least.clamp(min=0))
        if keep == 1:
            self.threshold.zero_()  # open for every image, not on average
