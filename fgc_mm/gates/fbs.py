"""The gate of FBS: the most salient channels, boosted."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fgc_mm.functional.pooling import global_average_pool
from fgc_mm.functional.schedule import Progress
from fgc_mm.functional.winners import winners
from fgc_mm.gates.checks import share_of_channels
from fgc_mm.gates.decision import ScalingDecision
from fgc_mm.registry import MODELS

TINY = torch.finfo(torch.float32).tiny


@MODELS.register_module()
class FBSGate(nn.Module):
    """One linear layer on pooled magnitudes; its largest outputs scale.

    ``s = relu(W . mean|x| + b)``; the ``ceil(density * C)`` channels of the
    largest s are multiplied with it, the others with 0. The choice passes no
    gradient, s does ("Dynamic channel pruning: feature boosting and
    suppression", ICLR 2019, Eq. 4 to 8). The paper scales the normalised map
    and adds the norm's offset afterwards; here the activation behind the
    norm is scaled, which is the same up to that offset.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels to open and close (C).
        density: Share of the channels that are open (d), in (0, 1]: a
            number, or a schedule, as in ``dict(start_value=1.0,
            end_value=0.5, begin=0, end=100)``; it falls in steps of an
            epoch. Evaluation takes the last one that was trained with.

    Shapes: (N, in_channels, H, W) -> four times (N, C), float32. The logits
    are the linear outputs above the largest that lost (and above 0).

    Raises:
        FGCError: A density outside (0, 1].
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        density: float | Mapping[str, Any] = 0.5,
    ) -> None:
        super().__init__()
        self.density = share_of_channels(density, 'density', 'FBSGate')
        self._progress: Progress | None = None
        self.predict = nn.Linear(in_channels, out_channels)
        nn.init.kaiming_normal_(self.predict.weight)
        nn.init.ones_(self.predict.bias)
        start = torch.tensor(self.density.start_value, dtype=torch.float64)
        self.register_buffer('trained_density', start)
        # the one of now, a tensor: a graph of torch.compile holds for all
        self.register_buffer('_now', start.clone(), persistent=False)

    @property
    def progress(self) -> Progress | None:
        """Where the run is, on which the density depends."""
        return self._progress

    @progress.setter
    def progress(self, progress: Progress | None) -> None:
        before, self._progress = self._progress, progress
        if progress is None:
            return
        density = self.density.at(progress)
        if before is None or self.density.at(before) != density:
            self._now.fill_(density)

    def forward(self, x: Tensor) -> ScalingDecision:
        """Decide for every image of the batch."""
        linear = self.predict(global_average_pool(x.abs())).float()
        saliency = linear.relu()
        won = winners(linear.detach(), self._density())
        lost = linear.detach().masked_fill(won, 0)
        logits = linear - lost.amax(dim=1, keepdim=True)
        # a winner that equals the largest loser is open all the same
        opened = won & (linear > 0)
        logits = torch.where(opened, logits.clamp(min=TINY), logits)
        return ScalingDecision(
            logits, logits.sigmoid(), saliency * won, saliency
        )

    def _density(self) -> float | Tensor:
        if not self.density.moves:
            return self.density.end_value
        if not self.training:
            return self.trained_density
        if self._progress is None:
            self.density.at(None)  # says what is missing
        self.trained_density.copy_(self._now)
        return self._now
