"""The loss that teaches a gate which channels will fire."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fgc_mm.errors import FGCError
from fgc_mm.functional import mass_mask, uniform_mask
from fgc_mm.functional.channel_groups import sum_groups
from fgc_mm.functional.mask_targets import channel_scores
from fgc_mm.losses.base import GateLoss
from fgc_mm.registry import MODELS
from fgc_mm.sites import GateRecord

TARGETS = {'mass': mass_mask, 'uniform': uniform_mask}


@MODELS.register_module()
class MaskPredictionLoss(GateLoss):
    """Binary cross entropy of the logits with the channels that mattered.

    The target of an image is made from the layer's own unmasked output,
    without gradient. Summed over channels, mean over the batch and the sites
    (FTWT, arXiv 2110.08232, Eq. 3). Where one decision opens several
    channels, its score is the sum of theirs, so that ``ratio`` stays the
    share of the layer's mass, and the sum is over decisions.

    Args:
        ratio: Share of the mass to keep (r) in (0, 1], or of the channels to
            drop in [0, 1) where ``target='uniform'``. ``plan_budget.py``
            finds the one that meets a budget.
        target: ``'mass'`` or ``'uniform'``; see
            :func:`fgc_mm.functional.mass_mask`, ``uniform_mask``.
        loss_weight: Published: 1 for the first half of the training, then 0
            (the cooldown, in which the backbone adapts to fixed gates).
        name: Logged as ``loss_<name>``.

    Raises:
        FGCError: An unknown target; a ratio with no channel left.
    """

    teaches = True

    def __init__(
        self,
        ratio: float,
        target: str = 'mass',
        loss_weight: float | Mapping[str, Any] = 1.0,
        name: str = 'mask',
    ) -> None:
        super().__init__(loss_weight, name)
        if target not in TARGETS:
            raise FGCError(
                f'target={target!r} of MaskPredictionLoss is unknown; choose '
                f'among {", ".join(TARGETS)}.'
            )
        self.ratio = ratio
        self.target = TARGETS[target]
        self.target(torch.ones(1, 1), ratio)  # refuses a bad one now

    def forward(
        self,
        records: Sequence[GateRecord],
        data_samples: Sequence[Any] | None = None,
    ) -> Tensor:
        """As everywhere; the gates stay in the graph where the weight is 0.

        Nothing else gives them a gradient, and a distributed run waits for
        every parameter's.
        """
        loss = super().forward(records, data_samples)
        return loss + 0 * sum(record.logits.sum() for record in records)

    def compute(
        self,
        records: Sequence[GateRecord],
        data_samples: Sequence[Any] | None = None,
    ) -> Tensor:
        """Mean over sites; ()."""
        return sum(map(self._of_site, records)) / len(records)

    def _of_site(self, record: GateRecord) -> Tensor:
        if record.activation is None:
            raise FGCError(
                'MaskPredictionLoss makes its targets from the activations '
                'before the gates; call forward_gated(x, '
                'keep_activation=True).'
            )
        scores = channel_scores(record.activation.float())
        scores = sum_groups(scores, record.site.group_sizes)
        wanted = self.target(scores, self.ratio)
        loss = F.binary_cross_entropy_with_logits(
            record.logits, wanted, reduction='sum'
        )
        return loss / len(wanted)
