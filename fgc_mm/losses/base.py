"""Base class of the gate losses, and its argument."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from fgc_mm.errors import FGCError
from fgc_mm.functional.full_precision import full_precision
from fgc_mm.functional.macs import MACsTable
from fgc_mm.functional.schedule import Progress, Schedule
from fgc_mm.sites import GateRecord, match_names


@dataclass(frozen=True)
class GateBatch:
    """One training batch, the only argument of a gate loss.

    The model (``GatedImageClassifier``, ``GatedModel``) makes one per step.

    Attributes:
        records: One per site.
        data_samples: One per image, with its labels and ``sample_idx``.
        progress: Finished epochs and iterations; ``None`` without
            ``LossProgressHook``, which sets them.
        macs_table: MACs of the layers for images of this size; set if a loss
            has ``needs_macs``.
        scores: (N, classes) of the head, before softmax or sigmoid, without
            gradient; set if a loss has ``needs_scores``.
        independent_labels: Whether ``scores`` are for one sigmoid per class
            instead of a softmax.
    """

    records: Sequence[GateRecord]
    data_samples: Sequence[Any] | None = None
    progress: Progress | None = None
    macs_table: MACsTable | None = None
    scores: Tensor | None = None
    independent_labels: bool = False


class GateLoss(nn.Module, ABC):
    """A weighted loss on the gate records of one batch.

    Args:
        loss_weight: A number, or ``dict(start_value=..., end_value=...,
            begin=..., end=..., by_epoch=True)`` for a scheduled weight.
        name: Logged as ``loss_<name>``.
    """

    trains_gates = False  # whether it trains gates without the task loss
    needs_macs = False  # whether it reads the batch's macs_table
    needs_scores = False  # whether it reads the batch's scores

    def __init__(
        self, loss_weight: float | Mapping[str, Any], name: str
    ) -> None:
        super().__init__()
        self.loss_weight = Schedule.build(loss_weight)
        self.name = name

    def forward(self, batch: GateBatch) -> Tensor:
        """Weight times loss; (). A weight of 0 skips the computation.

        Computes in float32, also under autocast.

        Raises:
            FGCError: The weight is scheduled and the batch has no progress.
        """
        weight = self.loss_weight.at(batch.progress)
        logits = batch.records[0].logits
        if weight == 0:
            return logits.new_zeros(())
        with full_precision(logits):
            return weight * self.compute(batch)

    @abstractmethod
    def compute(self, batch: GateBatch) -> Tensor:
        """The loss without its weight; ()."""

    def activation_of(self, record: GateRecord) -> Tensor:
        """A site's activation before the gate; (N, C, ...).

        Raises:
            FGCError: The record has none.
        """
        if record.activation is None:
            raise FGCError(
                f'{type(self).__name__} needs the activations before the '
                'gates; call forward_gated(x, keep_activation=True).'
            )
        return record.activation

    def select_sites(
        self, wanted: int | Sequence[str] | None, names: Sequence[str]
    ) -> list[str]:
        """Names of the gated sites that the loss acts on.

        Args:
            wanted: The last n, shell patterns, or ``None`` for all.
            names: Names of the gated sites, in order.

        Raises:
            FGCError: A pattern without a match, or a number of sites that do
                not exist.
        """
        if wanted is None:
            return list(names)
        if not isinstance(wanted, int):
            return match_names(wanted, names, 'the coupled site')
        if not 0 < wanted <= len(names):
            raise FGCError(
                f'sites={wanted} of {type(self).__name__} must be between 1 '
                f'and {len(names)}, the number of gate sites.'
            )
        return list(names[-wanted:])


def total(terms: Iterable[Tensor]) -> Tensor:
    """Sum of at least one tensor, in order."""
    return reduce(torch.add, terms)
