"""One batch, as gate losses see it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fgc_mm.functional.macs import MACsTable
from fgc_mm.functional.schedule import Progress
from fgc_mm.sites import GateRecord


@dataclass(frozen=True)
class GateBatch:
    """One training batch, the only argument of a gate loss.

    The model (:class:`GatedImageClassifier`, ``GatedModel``) makes it in
    every step.

    Attributes:
        records: One per site.
        data_samples: One per image, with its labels and ``sample_idx``.
        progress: Finished epochs and iterations; ``None`` if nothing sets
            them (``LossProgressHook`` does).
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
