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
    """The reduction of the MACs of every site's layers, with others open.

    Args:
        table: The network's layers.
        masks: (N, C) each.

    Returns:
        MACs of the site's layers with all channels open, divided by those
        with its masks.
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
    hits = 0
    for mask in masks:
        rows = [tuple(row) for row in (mask != 0).tolist()]
        hits += len(rows) - len(set(rows))
    return hits / max(sum(len(mask) for mask in masks), 1)


def format_time_ratio(clock: float, theory: float) -> str:
    """A time ratio, with a note if it exceeds the MACs ratio.

    A whole network hardly saves more time than work: if it seems to, the
    machine was busy, or the two networks were not run in the same way.
    """
    if clock > theory:
        return f'{clock:.2f} x (above theory: noise)'
    return f'{clock:.2f} x'
