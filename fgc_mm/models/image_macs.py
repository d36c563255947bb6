"""MACs and open channels of each image, added to its prediction."""

from collections.abc import Sequence
from math import nan

import torch
from mmengine.structures import BaseDataElement
from mmpretrain.structures import MultiTaskDataSample
from torch import Tensor

from fgc_mm.errors import FGCError
from fgc_mm.functional.macs import MACsTable
from fgc_mm.functional.macs_matrix import MACsMatrices
from fgc_mm.sites import GateRecord


def image_macs(
    records: Sequence[GateRecord], matrices: MACsMatrices
) -> tuple[Tensor, Tensor]:
    """MACs and open channels of each image, on the CPU.

    Returns:
        MACs (N,), nan for images for which a gate's output is nan or inf;
        and whether each channel is open, (N, sum of C) bool.
    """
    opened = torch.cat([r.mask for r in records], dim=1) != 0
    # nan > 0 is false, so such a network would look pruned
    finite = torch.cat([r.logits for r in records], dim=1).isfinite()
    macs = matrices(opened.double()).masked_fill(~finite.all(dim=1), nan)
    return macs.cpu(), opened.cpu()


def attach_macs(
    samples: Sequence[BaseDataElement],
    macs: Tensor,
    opened: Tensor,
    table: MACsTable,
) -> None:
    """Add the results of :func:`image_macs` and the table to predictions."""
    for sample, cost, row in zip(samples, macs, opened):
        fields = dict(
            macs=cost.clone(),
            gate_masks=row.clone(),
            macs_table=table,
            # lets an evaluator check that the prediction was not changed
            gated_score=sample.get('pred_score', None),
        )
        # a multi-task sample treats every data field as a task
        tasks = isinstance(sample, MultiTaskDataSample)
        for name, value in fields.items():
            kind = 'metainfo' if tasks else 'data'
            sample.set_field(value, name, field_type=kind)


def refuse_non_finite(records: Sequence[GateRecord]) -> None:
    """Raise FGCError if a gate's output is nan or inf for some image."""
    for record in records:
        if not record.logits.isfinite().all():
            raise FGCError(
                f'the gate of {record.site.name} outputs nan or inf, so its '
                'channels are neither open nor closed; train with a lower '
                'learning rate, or test another checkpoint.'
            )
