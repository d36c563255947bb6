"""The L0 loss, which closes gates."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fgc_mm.errors import check_choice
from fgc_mm.losses.base import GateBatch, GateLoss, total
from fgc_mm.registry import MODELS

REDUCTIONS = ('mean', 'sites')


@MODELS.register_module()
class L0Loss(GateLoss):
    """Expected number of open channels (BAS, ICLR 2020, Eq. 5).

    A decision that opens several channels is weighted by their number.

    Args:
        loss_weight: rho; published: 0.4, from 0 at epoch 100 to 0.4 at epoch
            300 of 500.
        reduction: ``'mean'``: the expected fraction of open channels over
            all sites (published code); ``'sites'``: their expected number,
            summed over the sites (FGC, arXiv 2111.14302, Eq. 9).
        name: Logged as ``loss_<name>``.

    Example:
        >>> import torch
        >>> from fgc_mm.losses import GateBatch
        >>> from fgc_mm.sites import GateRecord, GateSite
        >>> site = GateSite('conv1', (), (), in_channels=3, channels=8)
        >>> logits = torch.zeros(4, 8)
        >>> record = GateRecord(site, None, logits, logits.sigmoid(), logits)
        >>> L0Loss(loss_weight=0.4)(GateBatch([record]))
        tensor(0.2000)
    """

    def __init__(
        self,
        loss_weight: float | Mapping[str, Any] = 0.4,
        reduction: str = 'mean',
        name: str = 'l0',
    ) -> None:
        super().__init__(loss_weight, name)
        check_choice(
            f'reduction={reduction!r} of L0Loss', reduction, REDUCTIONS
        )
        self.reduction = reduction

    def compute(self, batch: GateBatch) -> Tensor:
        """Expected fraction, or number, of open channels; ()."""
        probs = [record.site.spread(record.probs) for record in batch.records]
        if self.reduction == 'mean':
            return torch.cat([p.flatten() for p in probs]).mean()
        return total(p.sum(dim=1).mean() for p in probs)
