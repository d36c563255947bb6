"""Base class of the gate losses: records in, scalar out."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from fgc_mm.functional.full_precision import full_precision
from fgc_mm.functional.macs import MACsTable
from fgc_mm.functional.schedule import Progress, Schedule
from fgc_mm.sites import GateRecord


class GateLoss(nn.Module, ABC):
    """A weighted loss on the records of one batch.

    Args:
        loss_weight: A number, or ``dict(start_value=..., end_value=...,
            begin=..., end=..., by_epoch=True)`` for a scheduled weight.
        name: Logged as ``loss_<name>``.
    """

    trains_gates = False  # whether it trains gates without the task loss
    needs_macs = False  # whether the classifier must set macs_table,
    needs_scores = False  # or scores
    independent_labels = False  # whether scores are for one sigmoid per class

    def __init__(
        self, loss_weight: float | Mapping[str, Any], name: str
    ) -> None:
        super().__init__()
        self.loss_weight = Schedule.build(loss_weight)
        self.name = name
        self.progress: Progress | None = None
        self.macs_table: MACsTable | None = None
        self.scores: Tensor | None = None  # (N, classes) before the softmax

    def forward(
        self,
        records: Sequence[GateRecord],
        data_samples: Sequence[Any] | None = None,
    ) -> Tensor:
        """Weight times loss; (). A weight of 0 skips the computation.

        Computes in float32, also under autocast.

        Args:
            records: One per site.
            data_samples: Labels and indices of the images, for losses that
                need them.
        """
        weight = self.loss_weight.at(self.progress)
        if weight == 0:
            return records[0].logits.new_zeros(())
        with full_precision(records[0].logits):
            return weight * self.compute(records, data_samples)

    @abstractmethod
    def compute(
        self,
        records: Sequence[GateRecord],
        data_samples: Sequence[Any] | None,
    ) -> Tensor:
        """The loss without its weight; ()."""
