"""An L1 loss on saliencies."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmpretrain.structures import label_to_onehot
from torch import Tensor

from fgc_mm.errors import FGCError, check_choice
from fgc_mm.losses.base import GateBatch, GateLoss, total
from fgc_mm.losses.easiness import Easiness
from fgc_mm.registry import MODELS

REDUCTIONS = ('sum', 'mean', 'site_means')


@MODELS.register_module()
class SaliencyL1Loss(GateLoss):
    """L1 norm of the saliencies (probabilities for other gates).

    A saliency that scales several channels is weighted by their number.

    Args:
        reduction: ``'sum'`` (FBS, ICLR 2019, Eq. 9) or ``'mean'`` over the
            channels of all sites; ``'site_means'``, the sum over sites of
            each site's mean over its channels (ManiDP's published code).
            Always the mean over the batch.
        easiness: Weight each image by its easiness, so that easy images have
            fewer open channels (ManiDP, CVPR 2021, Eq. 5, 6); see
            :class:`fgc_mm.losses.easiness.Easiness`.
        loss_weight: Published: 1e-8 (FBS); 5e-3 with ``'site_means'`` and
            ``easiness`` (ManiDP).
        name: Logged as ``loss_<name>``.

    Raises:
        FGCError: An unknown reduction; ``easiness`` without
            ``LossProgressHook``.

    Example:
        >>> import torch
        >>> from fgc_mm.losses import GateBatch
        >>> from fgc_mm.sites import GateRecord, GateSite
        >>> site = GateSite('conv1', (), (), in_channels=3, channels=8)
        >>> logits = torch.randn(4, 8, requires_grad=True)
        >>> record = GateRecord(
        ...     site, torch.randn(4, 8, 5, 5), logits, logits.sigmoid(),
        ...     (logits > 0) * 1.0)
        >>> SaliencyL1Loss(loss_weight=1e-3)(GateBatch([record])).shape
        torch.Size([])
    """

    def __init__(
        self,
        reduction: str = 'sum',
        easiness: bool = False,
        loss_weight: float | Mapping[str, Any] = 1e-8,
        name: str = 'saliency',
    ) -> None:
        super().__init__(loss_weight, name)
        check_choice(
            f'reduction={reduction!r} of SaliencyL1Loss', reduction, REDUCTIONS
        )
        self.reduction = reduction
        self.easiness = Easiness() if easiness else None
        self.needs_scores = easiness

    def forward(self, batch: GateBatch) -> Tensor:
        """As in the base class; measures easiness also for a weight of 0.

        So that in the first epoch of a weight that starts later there is a
        mean cross entropy of the epoch before.
        """
        weight = self.loss_weight
        skipped = weight.varies and weight.at(batch.progress) == 0
        if self.easiness is not None and skipped:
            self._weights(self.easiness, batch)
        return super().forward(batch)

    def compute(self, batch: GateBatch) -> Tensor:
        """Mean norm over the batch; ()."""
        norms = self._norms(
            [r.site.spread(r.gate_strength.abs()) for r in batch.records]
        )
        if self.easiness is not None:
            norms = norms * self._weights(self.easiness, batch)
        return norms.mean()

    def _norms(self, strengths: Sequence[Tensor]) -> Tensor:
        """The norm of each image; (N,)."""
        if self.reduction == 'site_means':
            return total(strength.mean(dim=1) for strength in strengths)
        joined = torch.cat(list(strengths), dim=1)
        return joined.sum(dim=1) if self.reduction == 'sum' else joined.mean(1)

    def _weights(self, easiness: Easiness, batch: GateBatch) -> Tensor:
        if batch.progress is None or batch.scores is None:
            raise FGCError(
                'SaliencyL1Loss(easiness=True) needs the progress of the '
                'training and the scores, but has none; use it in a '
                "GatedImageClassifier with dict(type='fgc_mm."
                "LossProgressHook') in custom_hooks."
            )
        scores, independent = batch.scores, batch.independent_labels
        classes = scores.shape[1] if independent else None
        labels = labels_of(batch.data_samples or (), classes)
        epoch = batch.progress.epoch
        return easiness(scores, labels.to(scores.device), epoch, independent)


def labels_of(
    data_samples: Sequence[Any], classes: int | None = None
) -> Tensor:
    """Classes (N,), or weights (N, classes) for mixed images.

    With independent labels, ``classes`` is their number, and the result is
    always (N, classes), of 0 and 1.
    """
    if 'gt_score' in data_samples[0]:
        return torch.stack([s.gt_score for s in data_samples])
    if classes is not None:
        return torch.stack(
            [label_to_onehot(s.gt_label, classes) for s in data_samples]
        )
    return torch.cat([s.gt_label for s in data_samples])
