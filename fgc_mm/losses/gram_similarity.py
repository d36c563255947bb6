"""Similarity of images in gate and feature space within a batch."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from fgc_mm.functional import global_average_pool, gram_similarity
from fgc_mm.losses.base import GateBatch, GateLoss, total
from fgc_mm.registry import MODELS
from fgc_mm.sites import GateRecord


@MODELS.register_module()
class GramSimilarityLoss(GateLoss):
    """Difference of image similarities in gate space and feature space.

    Coupling without a memory bank (ManiDP, CVPR 2021, Eq. 9 to 11): for each
    site the squared distance, over N^2, of the cosine Gram matrix of the
    gates' saliencies (probabilities for gates that do not scale) from that of
    the pooled activations. Summed over sites.

    Args:
        sites: The last n gated sites, shell patterns on their names, or
            ``None`` for all.
        loss_weight: Published: 0.1 by default, 1.0 in the command for
            ResNet-56. The gradient is large where saliencies are small; 0.1
            trains stably on all sites of a ResNet-20.
        name: Logged as ``loss_<name>``.
        detach: Whether the activations are detached, so that the loss trains
            the gates only; the published code does not detach (``False``).

    Raises:
        FGCError: A pattern without a match, or too many sites.

    Example:
        >>> import torch
        >>> from fgc_mm.losses import GateBatch
        >>> from fgc_mm.sites import GateRecord, GateSite
        >>> site = GateSite('conv1', (), (), in_channels=3, channels=8)
        >>> logits = torch.randn(4, 8, requires_grad=True)
        >>> record = GateRecord(
        ...     site, torch.randn(4, 8, 5, 5), logits, logits.sigmoid(),
        ...     (logits > 0) * 1.0)
        >>> GramSimilarityLoss()(GateBatch([record])).shape
        torch.Size([])
    """

    def __init__(
        self,
        sites: int | Sequence[str] | None = None,
        loss_weight: float | Mapping[str, Any] = 0.1,
        name: str = 'gram',
        detach: bool = True,
    ) -> None:
        super().__init__(loss_weight, name)
        self.wanted_sites = sites
        self.detach = detach

    def compute(self, batch: GateBatch) -> Tensor:
        """Sum over the coupled sites; ()."""
        names = [record.site.name for record in batch.records]
        chosen = self.select_sites(self.wanted_sites, names)
        coupled = [r for r in batch.records if r.site.name in chosen]
        return total(map(self._of_site, coupled))

    def _of_site(self, record: GateRecord) -> Tensor:
        activation = self.activation_of(record)
        if self.detach:
            activation = activation.detach()
        features = global_average_pool(activation.float())
        return gram_similarity(record.gate_strength, features)
