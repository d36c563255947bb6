"""Ratios of MACs, to compare with ratios of times."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fgc_mm.deploy.firing import gated_backbone
from fgc_mm.functional.macs import MACsTable, macs_per_image


@torch.no_grad()
def masks_of(model: nn.Module, batches: Sequence[Tensor]) -> list[Tensor]:
    """The masks of every site on some images; (N, C) each."""
    runs = [gated_backbone(model).forward_gated(b)[1] for b in batches]
    return [
        torch.cat([record.mask for record in records])
        for records in zip(*runs)
    ]


def site_macs_ratios(table: MACsTable, masks: Sequence[Tensor]) -> list[float]:
    """MACs of every site's layers over those with its masks, (N, C) each.

    All other sites are open.
    """
    everything = [torch.ones_like(mask[:1]) for mask in masks]
    whole = float(macs_per_image(table, everything))
    ratios = []
    for index, mask in enumerate(masks):
        some = [m.expand(len(mask), -1) for m in everything]
        some[index] = mask
        left = float(macs_per_image(table, some).mean())
        site_macs = table.site_macs(index)
        ratios.append(site_macs / max(site_macs - (whole - left), 1.0))
    return ratios


def mask_repeat_rate(masks: Sequence[Tensor]) -> float:
    """Fraction of images for which a site's mask has occurred before.

    This is the hit rate of a cache of gathered weights, one per mask.

    Args:
        masks: (N, C) of every site, the images in order.
    """
    total = sum(map(len, masks))
    different = sum(len((mask != 0).unique(dim=0)) for mask in masks)
    return (total - different) / max(total, 1)


def format_time_ratio(time_ratio: float, macs_ratio: float) -> str:
    """A time ratio, with a note if it exceeds the MACs ratio.

    A whole network hardly saves more time than work: if it seems to, the
    machine was busy, or the two networks were not run in the same way.
    """
    note = ' (above that of MACs: noise)' if time_ratio > macs_ratio else ''
    return f'{time_ratio:.2f} x{note}'
