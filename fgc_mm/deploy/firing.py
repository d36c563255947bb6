"""Firing rates of all channels on a calibration set."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fgc_mm.errors import FGCError
from fgc_mm.models import GatedBackbone
from fgc_mm.sites.eval_mode import eval_mode


@dataclass(frozen=True, eq=False)
class SiteFiring:
    """Firing rates of one site on a calibration set.

    Attributes:
        site: Its name.
        rate: (C,) fraction of the images that open a channel.
        whole: (C,) fraction of the images for which the factor is 1; below
            ``rate`` for gates with other factors.
        images: Number of images.
    """

    site: str
    rate: Tensor
    whole: Tensor
    images: int

    def never(self, tolerance: float = 0.0) -> Tensor:
        """(C,) bool: open for at most this fraction of the images."""
        return self.rate <= tolerance

    def always(self, tolerance: float = 0.0) -> Tensor:
        """(C,) bool: factor 1 for all but this fraction of the images."""
        return (self.whole >= 1 - tolerance) & ~self.never(tolerance)


@torch.no_grad()
def firing_statistics(
    model: nn.Module, batches: Iterable[Tensor]
) -> list[SiteFiring]:
    """Firing rates of every channel at every site.

    Args:
        model: A :class:`GatedBackbone`, or a classifier with one.
        batches: Images as the backbone takes them, (N, 3, H, W).

    Returns:
        One entry per site, in the order of the sites.

    Raises:
        FGCError: A model without gates, or no images.
    """
    backbone = gated_backbone(model)
    opened = [torch.zeros(s.channels).double() for s in backbone.sites]
    whole = [torch.zeros(s.channels).double() for s in backbone.sites]
    images = 0
    with eval_mode(backbone):
        for batch in batches:
            images += len(batch)
            _, records = backbone.forward_gated(batch)
            for index, record in enumerate(records):
                opened[index] += (record.mask != 0).sum(0).cpu()
                whole[index] += (record.mask == 1).sum(0).cpu()
    if not images:
        raise FGCError(
            'the calibration set has no image, so no channel has a firing '
            'rate; give at least one, better some hundred.'
        )
    return [
        SiteFiring(site.name, opened[i] / images, whole[i] / images, images)
        for i, site in enumerate(backbone.sites)
    ]


def check_images(images: Tensor) -> None:
    """Raise FGCError unless these are finite images (N, 3, H, W)."""
    if not isinstance(images, Tensor):
        raise FGCError(
            f'images are a {type(images).__name__}, but a calibration needs '
            'a tensor (N, 3, H, W); give one, for example '
            'torch.cat(list(images)).'
        )
    if images.dim() != 4 or len(images) == 0:
        raise FGCError(
            f'images have shape {tuple(images.shape)}, but a calibration '
            'takes (N, 3, H, W) with at least one image.'
        )
    if not images.isfinite().all():
        number = int((~images.isfinite()).flatten(1).any(1).nonzero()[0, 0])
        raise FGCError(
            f'image {number} of images has nan or inf, whose outputs cannot '
            'be compared with those of the masked model; remove it.'
        )


def gated_backbone(model: nn.Module) -> GatedBackbone:
    """The gated backbone of a model, or the model itself.

    Raises:
        FGCError: There is none.
    """
    for candidate in (model, getattr(model, 'backbone', None)):
        if isinstance(candidate, GatedBackbone):
            return candidate
    raise FGCError(
        f'{type(model).__name__} has no gates; give a model whose backbone '
        'is a fgc_mm.GatedBackbone.'
    )
