"""Batch shaping, which keeps gates conditional."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fgc_mm.functional import batch_shaping
from fgc_mm.losses.base import GateBatch, GateLoss
from fgc_mm.registry import MODELS


@MODELS.register_module()
class BatchShapingLoss(GateLoss):
    """Match each gate's marginal distribution to a Beta prior (BAS, sec. 3.2).

    A decision that opens several channels counts once.

    Args:
        alpha: First parameter of the Beta prior.
        beta: Second parameter.
        loss_weight: Published: 0.75, decreasing linearly to 0 over 100
            epochs.
        name: Logged as ``loss_<name>``.

    Example:
        >>> import torch
        >>> from fgc_mm.losses import GateBatch
        >>> from fgc_mm.sites import GateRecord, GateSite
        >>> site = GateSite('conv1', (), (), in_channels=3, channels=8)
        >>> logits = torch.randn(4, 8, requires_grad=True)
        >>> probs = logits.sigmoid()
        >>> record = GateRecord(site, None, logits, probs, (logits > 0) * 1.0)
        >>> loss = BatchShapingLoss()(GateBatch([record]))
        >>> loss.backward()
        >>> logits.grad.shape
        torch.Size([4, 8])
    """

    def __init__(
        self,
        alpha: float = 0.6,
        beta: float = 0.4,
        loss_weight: float | Mapping[str, Any] = 0.75,
        name: str = 'shaping',
    ) -> None:
        super().__init__(loss_weight, name)
        self.alpha = alpha
        self.beta = beta

    def compute(self, batch: GateBatch) -> Tensor:
        """Cramer-von-Mises distance, summed over decisions and sites; ()."""
        # one sort for all sites: the distance is a sum over columns
        probs = torch.cat([r.probs for r in batch.records], dim=1)
        return batch_shaping(probs, self.alpha, self.beta)
