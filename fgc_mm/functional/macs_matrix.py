"""MACs per image by a few matrix products.

The numbers of a layer's open inputs and open outputs are linear in the masks,
and its MACs are their product; those of a depthwise conv inside a site are
linear. So all layers together take a few matrix products, whatever the depth
of the network.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from fgc_mm.functional.macs import (
    LayerMACs,
    MACsTable,
    SitePositions,
    open_pairs,
)

MOST_TABLES = 16  # of images of different sizes


class MACsMatrices:
    """Counts MACs like ``macs_per_image``, in few operations.

    Args:
        table: The network's layers.
        counting: As in :func:`fgc_mm.functional.macs.macs_per_image`.
    """

    def __init__(self, table: MACsTable, counting: str = 'honest') -> None:
        self.table = table
        layers = table.counted(counting)
        self.fixed = sum(layer.dense for layer in layers if not layer.sites)
        gated_layers = [layer for layer in layers if layer.sites]
        pairs = [layer for layer in gated_layers if _is_product(layer)]
        singles = [layer for layer in gated_layers if _is_single(layer)]
        # channels of several sites, or grouped convs
        self.others = [
            layer
            for layer in gated_layers
            if layer not in pairs and layer not in singles
        ]
        self._numbers = self._build(pairs, singles)

    def __call__(self, opened: Tensor) -> Tensor:
        """MACs of each image; differentiable.

        Args:
            opened: (N, sum of C) float64, all sites concatenated; 1 is open.

        Returns:
            (N,) float64.
        """
        self._numbers = [x.to(opened.device) for x in self._numbers]
        inputs, outputs, units, singles = self._numbers
        ones = opened.new_ones(len(opened), 1)
        known = torch.cat([opened, ones], dim=1)
        total = ((known @ inputs) * (known @ outputs)) @ units
        total = total + known @ singles + self.fixed
        parts = opened.split(self.table.channels, dim=1)
        for layer in self.others:
            total = total + layer.unit * open_pairs(layer, parts)
        return total

    def _build(
        self, pairs: list[LayerMACs], singles: list[LayerMACs]
    ) -> list[Tensor]:
        columns = sum(self.table.channels) + 1
        none = torch.zeros(columns, 0, dtype=torch.float64)
        inputs = [self._weights(x.in_sites, x.in_channels) for x in pairs]
        outputs = [self._weights(x.out_sites, x.out_channels) for x in pairs]
        units = torch.tensor([x.unit for x in pairs], dtype=torch.float64)
        single = torch.zeros(columns, dtype=torch.float64)
        for layer in singles:
            weights = self._weights(layer.in_sites, layer.in_channels)
            single += layer.unit * weights
        return [
            torch.stack(inputs, 1) if inputs else none,
            torch.stack(outputs, 1) if outputs else none,
            units,
            single,
        ]

    def _weights(self, side: Sequence[SitePositions], channels: int) -> Tensor:
        """How often each site's channel occurs; last, channels of no site."""
        weights = torch.zeros(sum(self.table.channels) + 1, dtype=torch.double)
        weights[-1] = channels
        for site, positions in side:
            start = sum(self.table.channels[:site])
            every = range(self.table.channels[site])
            for position in every if positions is None else positions:
                if position >= 0:
                    weights[start + position] += 1
                    weights[-1] -= 1
        return weights


class KeptMatrices:
    """The matrices of the last tables, each built once."""

    def __init__(self) -> None:
        self._kept: list[MACsMatrices] = []

    def of(self, table: MACsTable) -> MACsMatrices:
        """The matrices of a table, which is compared by identity."""
        for matrices in self._kept:
            if matrices.table is table:
                return matrices
        built = MACsMatrices(table)
        # a new list, since another thread may read the old one
        self._kept = [*self._kept[1 - MOST_TABLES :], built]
        return built


def _is_product(layer: LayerMACs) -> bool:
    """Whether the MACs are a product of open inputs and open outputs."""
    sides = (
        (layer.in_sites, layer.in_channels),
        (layer.out_sites, layer.out_channels),
    )
    return layer.groups == 1 and all(_is_linear(*side) for side in sides)


def _is_single(layer: LayerMACs) -> bool:
    """Whether the MACs are linear in the masks: depthwise in one site."""
    return layer.is_inside and _is_linear(layer.in_sites, layer.in_channels)


def _is_linear(side: Sequence[SitePositions], channels: int) -> bool:
    """Whether no channel belongs to more than one site."""
    count = torch.zeros(channels, dtype=torch.int64)
    for _, positions in side:
        if positions is None:
            count += 1
        else:
            count += torch.tensor([p >= 0 for p in positions])
    return not len(count) or int(count.max()) <= 1
