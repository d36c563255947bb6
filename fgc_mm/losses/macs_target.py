"""A loss with a target for the pruning ratio."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fgc_mm.errors import FGCError
from fgc_mm.functional.macs_matrix import KeptMatrices, MACsMatrices
from fgc_mm.functional.schedule import Schedule
from fgc_mm.losses.base import GateBatch, GateLoss
from fgc_mm.registry import MODELS
from fgc_mm.sites import GateRecord


@MODELS.register_module()
class MACsTargetLoss(GateLoss):
    """Squared distance of the batch's mean MACs to a target (DGNet, Eq. 7).

    ``(mean MACs / dense MACs - (1 - pruning_ratio))^2``, with gates and
    classifier counted. The MACs are those of evaluation at a threshold of 0.5
    (logits above 0), from which a sampled mask differs by some points; the
    gradient is that of the mask (of the probabilities, where the mask has
    none). Single images of a batch may cost more or less than the target.
    Source: Li et al., "Dynamic dual gating neural networks" (ICCV 2021).

    Args:
        pruning_ratio: Fraction of the dense MACs to save, in (0, 1): a
            number, or a schedule. A schedule may start at 0, as in
            ``dict(start_value=0.0, end_value=0.55, begin=0, end=200)``, for
            a network that starts dense.
        loss_weight: Published: 5, the default; the configs of this package
            use 50 or 100 (see docs/budget.md).
        name: Logged as ``loss_<name>``.

    Raises:
        FGCError: An invalid ratio, or (at the first step) one that cannot be
            reached even with every gate closed.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from fgc_mm.functional import LayerMACs, MACsTable
        >>> from fgc_mm.losses import GateBatch
        >>> from fgc_mm.models import GatedBackbone
        >>> net = nn.Sequential(
        ...     nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
        >>> gated = GatedBackbone(net, dict(type='fgc_mm.BinaryConcreteGate'))
        >>> loss = MACsTargetLoss(pruning_ratio=0.3)
        >>> layers = (
        ...     LayerMACs('0', 'backbone', 1764, 3, 8, out_sites=((0, None),)),
        ...     LayerMACs('2', 'backbone', 1296, 8, 4, in_sites=((0, None),)))
        >>> table = MACsTable(layers, ('0',), (8,))
        >>> _, records = gated.forward_gated(torch.randn(4, 3, 16, 16))
        >>> loss(GateBatch(records, macs_table=table)).shape
        torch.Size([])
    """

    needs_macs = True

    def __init__(
        self,
        pruning_ratio: float | Mapping[str, Any],
        loss_weight: float | Mapping[str, Any] = 5.0,
        name: str = 'macs',
    ) -> None:
        super().__init__(loss_weight, name)
        self.ratios = _ratio_schedule(pruning_ratio)
        self._macs: KeptMatrices | None = None  # from the first step on

    def compute(self, batch: GateBatch) -> Tensor:
        """Squared distance to the target; ()."""
        table = batch.macs_table
        if table is None:
            raise FGCError(
                'MACsTargetLoss needs the macs_table of the batch; use it in '
                'the gate_losses of a GatedImageClassifier or GatedModel.'
            )
        opened = _open_channels(batch.records)
        if self._macs is None:
            kept = KeptMatrices()
            self._check_reachable(kept.of(table), opened)
            self._macs = kept
        share = self._macs.of(table)(opened).mean() / table.base()
        return (share - (1 - self.ratios.at(batch.progress))).square().float()

    def _check_reachable(self, macs: MACsMatrices, opened: Tensor) -> None:
        closed = macs(opened.detach()[:1] * 0)
        most = 1 - closed.item() / macs.table.base()
        ratio = max(self.ratios.ends)
        if ratio > most:
            raise FGCError(
                f'pruning_ratio={ratio} is out of reach: with every gate '
                'closed, the gates and the layers without a site still '
                f'cost {1 - most:.1%} of the dense MACs; ask for less than '
                f'{max(most, 0):.3f}.'
            )


def _ratio_schedule(value: float | Mapping[str, Any]) -> Schedule:
    """A schedule of pruning ratios; FGCError if one cannot be saved."""
    if not isinstance(value, (int, float)) or 0 < value < 1:
        schedule = Schedule.build(value, 'pruning_ratio')
        if max(schedule.ends) < 1 and schedule.end_value > 0:
            return schedule
    raise FGCError(
        f'pruning_ratio={value} of MACsTargetLoss is not a fraction of the '
        'MACs that can be saved; give a number between 0 and 1, such as 0.55.'
    )


def _open_channels(records: Sequence[GateRecord]) -> Tensor:
    """1 where evaluation opens, with the gradient of masks; (N, sum of C)."""
    # a mask without a gradient (FTWT) is replaced by the probabilities
    masks = [
        r.mask if r.mask.requires_grad else r.site.spread(r.probs)
        for r in records
    ]
    soft = torch.cat(masks, dim=1).double()
    logits = [r.site.spread(r.logits) for r in records]
    hard = torch.cat(logits, dim=1) > 0
    return hard.double() + (soft - soft.detach())
