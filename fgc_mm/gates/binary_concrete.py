"""The gate of BAS and FGC."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fgc_mm.errors import FGCError
from fgc_mm.functional import binary_concrete
from fgc_mm.functional.number import is_number
from fgc_mm.functional.pooling import global_average_pool
from fgc_mm.functional.schedule import Progress, Schedule
from fgc_mm.gates.checks import (
    check_threshold,
    check_width,
    initialize_linear,
    logit,
)
from fgc_mm.gates.decision import GateDecision
from fgc_mm.registry import MODELS


@MODELS.register_module()
class BinaryConcreteGate(nn.Module):
    """Global pooling, two linear layers, and a binary concrete sample.

    Global average pool of the layer's input, linear without bias to
    ``hidden_channels``, BatchNorm, ReLU, linear to one logit per channel
    (BAS, ICLR 2020, section 3.1; FGC, arXiv 2111.14302, Eq. 3). In training
    the mask is a binary concrete sample, hard in the forward pass and with a
    soft gradient; in evaluation it is ``sigmoid(logits) > threshold``.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels to open and close (C).
        hidden_channels: Width of the hidden layer.
        temperature: Concrete temperature: a number, or a schedule, as in
            ``dict(start_value=0.67, end_value=0.5, begin=0, end=500)``. Only
            the gradient depends on it, not the hard mask.
        weight_init: Initialisation of the two linear layers' weights.
            ``'torch'``: the default of ``nn.Linear``. ``'kaiming_normal'``
            (fan in, gain sqrt 2): as in the published code of FGC; initial
            logits have a standard deviation of about 1.0 instead of 0.4.
            ``'zero'``: the last layer's weights are 0, so that with a
            positive ``init_bias`` all channels are open at first, and
            evaluation starts as the dense network.
        init_bias: Initial value of the logits' bias; above 0, channels are
            mostly open when training starts. ``None``: the default of
            ``nn.Linear`` (published code of FGC).
        threshold: Probability above which evaluation opens a channel; a
            higher one prunes a trained model further.
        noise: Scale of the sample's logistic noise: a number (1 is
            published), or a schedule. At 0 training uses the masks of
            evaluation at a threshold of 0.5, with the soft gradient.

    Shapes: (N, in_channels, H, W) -> three times (N, C), float32.

    Example:
        >>> import torch
        >>> gate = BinaryConcreteGate(in_channels=3, out_channels=8).eval()
        >>> decision = gate(torch.randn(2, 3, 16, 16))
        >>> decision.mask.shape
        torch.Size([2, 8])
        >>> bool(((decision.mask == 0) | (decision.mask == 1)).all())
        True
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        hidden_channels: int = 16,
        temperature: float | Mapping[str, Any] = 2 / 3,
        weight_init: str = 'torch',
        init_bias: float | None = 0.0,
        threshold: float = 0.5,
        noise: float | Mapping[str, Any] = 1.0,
    ) -> None:
        super().__init__()
        self.temperatures = _positive(temperature)
        self.noises = Schedule.build(noise, 'noise')
        self._progress: Progress | None = None
        self._noise_is_zero = False
        # scheduled values as tensors, so that a compiled graph stays valid
        for name, schedule in self._schedules().items():
            start = torch.tensor(schedule.start_value, dtype=torch.float32)
            self.register_buffer(name, start, persistent=False)
        check_threshold(threshold, 'BinaryConcreteGate')
        check_width(hidden_channels, 'BinaryConcreteGate')
        if init_bias is not None and not is_number(init_bias):
            raise FGCError(
                f'init_bias={init_bias!r} of BinaryConcreteGate is not a '
                'number; give one, such as 0.0, or None.'
            )
        self.threshold = threshold
        self.squeeze = nn.Linear(in_channels, hidden_channels, bias=False)
        self.norm = nn.BatchNorm1d(hidden_channels)
        self.act = nn.ReLU(inplace=True)
        self.expand = nn.Linear(hidden_channels, out_channels)
        initialize_linear(
            self.squeeze, self.expand, weight_init, 'BinaryConcreteGate'
        )
        if init_bias is not None:
            nn.init.constant_(self.expand.bias, init_bias)

    def forward(self, x: Tensor) -> GateDecision:
        """Decide for every image of the batch."""
        if self.training and len(x) == 1 and not self._norm_is_fixed():
            raise FGCError(
                'a training batch of 1 image has no variance for the '
                'BatchNorm of the gate; use a batch_size of at least 2 that '
                'leaves no last batch of 1, or, where there are more images '
                'than batch_size, drop_last=True in the train_dataloader.'
            )
        hidden = self.act(self.norm(self.squeeze(global_average_pool(x))))
        logits = self.expand(hidden).float()
        if self.training:
            mask = self._sample(logits)
        else:
            mask = (logits > logit(self.threshold)).to(logits.dtype)
        return GateDecision(logits, logits.sigmoid(), mask)

    @property
    def temperature(self) -> float:
        """The concrete temperature at this point of the training."""
        return self.temperatures.at(self.progress)

    @property
    def progress(self) -> Progress | None:
        """Progress of the training, which determines scheduled values."""
        return self._progress

    @progress.setter
    def progress(self, progress: Progress | None) -> None:
        before, self._progress = self._progress, progress
        if progress is None:
            return
        self._noise_is_zero = self.noises.at(progress) == 0
        for name, schedule in self._schedules().items():
            value = schedule.at(progress)
            if before is None or schedule.at(before) != value:
                self.get_buffer(name).fill_(value)

    def _schedules(self) -> dict[str, Schedule]:
        """The schedules that vary, by the buffer of their present value."""
        schedules = dict(_temperature=self.temperatures, _noise=self.noises)
        return {name: x for name, x in schedules.items() if x.varies}

    def _value(self, name: str, schedule: Schedule) -> float | Tensor:
        if schedule.varies and self._progress is not None:
            # a copy, since autograd keeps it
            return self.get_buffer(name).clone()
        return schedule.at(None)  # raises an error for missing progress

    def _sample(self, logits: Tensor) -> Tensor:
        temperature = self._value('_temperature', self.temperatures)
        noise = self._value('_noise', self.noises)
        if self._noise_is_zero or self.noises.ends == (0, 0):
            half = torch.full_like(logits, 0.5, requires_grad=False)
            return binary_concrete(logits, temperature, half)
        if self.noises.ends != (1, 1):
            # equivalent to scaling the noise alone
            logits, temperature = logits / noise, temperature / noise
        return binary_concrete(logits, temperature)

    def _norm_is_fixed(self) -> bool:
        # a synchronised norm also uses the images of other ranks
        synchronised = isinstance(self.norm, nn.SyncBatchNorm)
        return synchronised or not self.norm.training


def _positive(temperature: float | Mapping[str, Any]) -> Schedule:
    """A schedule of temperatures; FGCError if one is not positive."""
    if not isinstance(temperature, (int, float)) or temperature > 0:
        schedule = Schedule.build(temperature, 'temperature')
        if min(schedule.ends) > 0:
            return schedule
    raise FGCError(
        f'temperature={temperature} of BinaryConcreteGate is not positive; '
        'the published value is 2/3.'
    )
