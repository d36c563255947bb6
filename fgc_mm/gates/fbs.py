"""The gate of FBS."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fgc_mm.functional.pooling import global_average_pool
from fgc_mm.functional.schedule import Progress
from fgc_mm.functional.topk_mask import topk_mask
from fgc_mm.gates.checks import channel_fraction
from fgc_mm.gates.decision import ScalingDecision
from fgc_mm.registry import MODELS

TINY = torch.finfo(torch.float32).tiny


@MODELS.register_module()
class FBSGate(nn.Module):
    """One linear layer on pooled magnitudes; its largest outputs scale.

    ``s = relu(W . mean|x| + b)``; the ``ceil(density * C)`` channels with
    the largest s are multiplied by it, the others by 0. The gradient flows
    through s, not through the selection ("Dynamic channel pruning: feature
    boosting and suppression", ICLR 2019, Eq. 4 to 8). The paper scales the
    normalised map and then adds the norm's offset; here the activation after
    the norm is scaled, which is equal up to that offset.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels to open and close (C).
        density: Fraction of open channels (d), in (0, 1]: a number, or a
            schedule, as in ``dict(start_value=1.0, end_value=0.5, begin=0,
            end=100)``, which changes once per epoch. Evaluation uses the
            last value used in training.

    Shapes: (N, in_channels, H, W) -> four times (N, C), float32. The logits
    are the linear outputs minus the largest one not selected (at least 0).

    Raises:
        FGCError: A density outside (0, 1].

    Example:
        >>> import torch
        >>> gate = FBSGate(in_channels=3, out_channels=8, density=0.25)
        >>> decision = gate(torch.randn(2, 3, 16, 16))
        >>> int((decision.mask != 0).sum(dim=1).max()) <= 2
        True
    """

    trained_density: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        density: float | Mapping[str, Any] = 0.5,
    ) -> None:
        super().__init__()
        self.density = channel_fraction(density, 'density', 'FBSGate')
        self._progress: Progress | None = None
        self.predict = nn.Linear(in_channels, out_channels)
        nn.init.kaiming_normal_(self.predict.weight)
        nn.init.ones_(self.predict.bias)
        # a tensor, so that a compiled graph stays valid
        start = torch.tensor(self.density.start_value, dtype=torch.float64)
        self.register_buffer('trained_density', start)

    @property
    def progress(self) -> Progress | None:
        """Progress of the training, which determines the density."""
        return self._progress

    @progress.setter
    def progress(self, progress: Progress | None) -> None:
        self._progress = progress
        self._set_trained_density()

    def train(self, mode: bool = True) -> 'FBSGate':
        """As ``nn.Module.train``; training uses the current density."""
        super().train(mode)
        self._set_trained_density()
        return self

    def _set_trained_density(self) -> None:
        # not in forward, which may be compiled
        if self.training and self._progress is not None:
            self.trained_density.fill_(self.density.at(self._progress))

    def forward(self, x: Tensor) -> ScalingDecision:
        """Decide for every image of the batch."""
        linear = self.predict(global_average_pool(x.abs())).float()
        saliency = linear.relu()
        selected = topk_mask(linear.detach(), self._density())
        others = linear.detach() * ~selected
        logits = linear - others.amax(dim=1, keepdim=True)
        # a selected channel is open even if it ties with the largest other
        logits = logits + TINY * (selected & (linear > 0))
        return ScalingDecision(
            logits, logits.sigmoid(), saliency * selected, saliency
        )

    def _density(self) -> float | Tensor:
        if not self.density.varies:
            return self.density.end_value
        if self.training and self._progress is None:
            self.density.at(None)  # raises the error for missing progress
        return self.trained_density
