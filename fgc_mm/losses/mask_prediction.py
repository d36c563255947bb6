"""A loss that trains a gate to predict the largest channels."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fgc_mm.errors import check_choice
from fgc_mm.functional import mass_mask, uniform_mask
from fgc_mm.functional.channel_groups import sum_groups
from fgc_mm.losses.base import GateBatch, GateLoss, total
from fgc_mm.registry import MODELS
from fgc_mm.sites import GateRecord

TARGETS = {'mass': mass_mask, 'uniform': uniform_mask}


@MODELS.register_module()
class MaskPredictionLoss(GateLoss):
    """Binary cross entropy of the logits with the largest channels.

    The target of an image is computed from the layer's unmasked output as
    the next layer reads it (scaled by a squeeze-excite, if there is one),
    without gradient. Summed over channels, mean over the batch and the sites
    (FTWT, arXiv 2110.08232, Eq. 3). Where one decision opens several
    channels, its score is the sum of theirs, so that ``ratio`` stays the
    fraction of the layer's mass, and the sum is over decisions.

    Args:
        ratio: Fraction of the mass to keep (r), in (0, 1], or of the channels
            to drop, in [0, 1), if ``target='uniform'``. ``plan_budget.py``
            finds the ratio for a budget.
        target: ``'mass'`` or ``'uniform'``; see
            :func:`fgc_mm.functional.mass_mask`, ``uniform_mask``.
        loss_weight: Published: 1 for the first half of the training, then 0
            (the backbone then adapts to gates that stay fixed, once the
            optimizer's momentum has faded).
        name: Logged as ``loss_<name>``.

    Raises:
        FGCError: An unknown target; a ratio that leaves no channel.

    Example:
        >>> import torch
        >>> from fgc_mm.losses import GateBatch
        >>> from fgc_mm.sites import GateRecord, GateSite
        >>> site = GateSite('conv1', (), (), in_channels=3, channels=8)
        >>> logits = torch.randn(4, 8, requires_grad=True)
        >>> record = GateRecord(
        ...     site, torch.randn(4, 8, 5, 5), logits, logits.sigmoid(),
        ...     (logits > 0) * 1.0)
        >>> loss = MaskPredictionLoss(ratio=0.9)
        >>> loss(GateBatch([record])).shape
        torch.Size([])
    """

    trains_gates = True

    def __init__(
        self,
        ratio: float,
        target: str = 'mass',
        loss_weight: float | Mapping[str, Any] = 1.0,
        name: str = 'mask',
    ) -> None:
        super().__init__(loss_weight, name)
        check_choice(
            f'target={target!r} of MaskPredictionLoss', target, TARGETS
        )
        self.ratio = ratio
        self.target = TARGETS[target]
        self.target(torch.ones(1, 1), ratio)  # raises for a bad ratio

    def forward(self, batch: GateBatch) -> Tensor:
        """As in the base class, but with a graph also for a weight of 0.

        No other loss gives the gates a gradient, and distributed training
        waits for the gradient of every parameter.
        """
        loss = super().forward(batch)
        return loss + 0 * sum(record.logits.sum() for record in batch.records)

    def compute(self, batch: GateBatch) -> Tensor:
        """Mean over sites; ()."""
        return total(map(self._of_site, batch.records)) / len(batch.records)

    def _of_site(self, record: GateRecord) -> Tensor:
        scores = sum_groups(record.peaks, record.site.group_sizes)
        wanted = self.target(scores, self.ratio)
        loss = F.binary_cross_entropy_with_logits(
            record.logits, wanted, reduction='sum'
        )
        return loss / len(wanted)
