"""The loss that keeps gates conditional while they learn."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fgc_mm.functional import batch_shaping
from fgc_mm.losses.base import GateLoss
from fgc_mm.registry import MODELS
from fgc_mm.sites import GateRecord


@MODELS.register_module()
class BatchShapingLoss(GateLoss):
    """Pull each gate's marginal towards a Beta prior (BAS, section 3.2).

    It shapes decisions: one that opens several channels counts once.

    Args:
        alpha: First parameter of the Beta prior.
        beta: Second parameter.
        loss_weight: Published: 0.75, on a line to 0 over 100 epochs.
        name: Logged as ``loss_<name>``.
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

    def compute(
        self,
        records: Sequence[GateRecord],
        data_samples: Sequence[Any] | None = None,
    ) -> Tensor:
        """Cramer-von-Mises distance, summed over decisions and sites; ()."""
        # one sort for all sites: the distance is a sum over columns anyway
        probs = torch.cat([r.probs for r in records], dim=1)
        return batch_shaping(probs, self.alpha, self.beta)
