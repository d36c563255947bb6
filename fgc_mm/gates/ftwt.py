"""The gate of FTWT."""

from torch import Tensor, nn

from fgc_mm.errors import check_choice
from fgc_mm.functional.pooling import global_average_pool, global_max_pool
from fgc_mm.gates.checks import check_threshold, logit
from fgc_mm.gates.decision import GateDecision
from fgc_mm.registry import MODELS

POOLS = {'average': global_average_pool, 'max': global_max_pool}


@MODELS.register_module()
class FTWTGate(nn.Module):
    """Pooling, softmax over channels, and one linear layer.

    The mask is hard in training too, without noise, and passes no gradient of
    the task: gate losses train the gate, as published ``MaskPredictionLoss``,
    whose targets are the channels with large activations ("Fire Together Wire
    Together", arXiv 2110.08232, section 3.1).

    Args:
        in_channels: Channels of the input.
        out_channels: Channels to open and close (C).
        pool: ``'average'`` (published code) or ``'max'`` (paper).
        decoupled: Whether the gate's input is detached, so that its loss
            trains the gate only; ``False`` trains the layers below as well
            ("joint").
        threshold: Probability above which a channel is open.

    Shapes: (N, in_channels, H, W) -> three times (N, C), float32.

    Example:
        >>> import torch
        >>> gate = FTWTGate(in_channels=3, out_channels=8)
        >>> gate(torch.randn(2, 3, 16, 16)).logits.shape
        torch.Size([2, 8])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        pool: str = 'average',
        decoupled: bool = True,
        threshold: float = 0.5,
    ) -> None:
        super().__init__()
        check_choice(f'pool={pool!r} of FTWTGate', pool, POOLS)
        check_threshold(threshold, 'FTWTGate')
        self.pool = pool
        self.decoupled = decoupled
        self.threshold = threshold
        self.predict = nn.Linear(in_channels, out_channels)

    def forward(self, x: Tensor) -> GateDecision:
        """Decide for every image of the batch."""
        pooled = POOLS[self.pool](x.detach() if self.decoupled else x)
        logits = self.predict(pooled.softmax(dim=1)).float()
        mask = (logits.detach() > logit(self.threshold)).to(logits.dtype)
        return GateDecision(logits, logits.sigmoid(), mask)
