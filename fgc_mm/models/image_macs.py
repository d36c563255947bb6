"""MACs and open channels of each image, added to its prediction."""

from __future__ import annotations

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

    Args:
        records: One per site.
        matrices: Matrices of the model's MACs table.

    Returns:
        MACs (N,), nan for images for which a gate's output is nan or inf;
        and whether each channel is open, (N, sum of C) bool.
    """
    opened = torch.cat([r.mask for r in records], dim=1) != 0
    macs = matrices(opened.double())
    macs = macs.masked_fill(_non_finite_images(records), nan)
    return macs.cpu(), opened.cpu()


def attach_macs(
    samples: Sequence[BaseDataElement],
    macs: Tensor,
    opened: Tensor,
    table: MACsTable,
) -> None:
    """Add ``macs``, ``gate_masks`` and ``macs_table`` to predictions.

    Args:
        samples: One per image.
        macs: (N,).
        opened: (N, sum of C).
        table: One object that all samples share.
    """
    for sample, cost, row in zip(samples, macs, opened):
        # a multi-task sample treats every data field as a task
        tasks = isinstance(sample, MultiTaskDataSample)
        kind = 'metainfo' if tasks else 'data'
        sample.set_field(cost.clone(), 'macs', field_type=kind)
        sample.set_field(row.clone(), 'gate_masks', field_type=kind)
        sample.set_field(table, 'macs_table', field_type=kind)
        # lets an evaluator check that the prediction was not changed
        score = sample.get('pred_score', None)
        sample.set_field(score, 'gated_score', field_type=kind)


def refuse_non_finite(records: Sequence[GateRecord]) -> None:
    """Raise an error if a gate's output is nan or inf.

    Raises:
        FGCError: It is, for some image.
    """
    for record in records:
        if not record.logits.isfinite().all():
            raise FGCError(
                f'the gate of {record.site.name} outputs nan or inf, so its '
                'channels are neither open nor closed; train with a lower '
                'learning rate, or test another checkpoint.'
            )


def _non_finite_images(records: Sequence[GateRecord]) -> Tensor:
    """Images for which some gate's output is nan or inf; (N,) bool."""
    # nan > 0 is false, so such a network would look pruned
    logits = torch.cat([record.logits for record in records], dim=1)
    return ~logits.isfinite().all(dim=1)
