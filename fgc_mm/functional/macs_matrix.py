"""MACs per image by a few matrix products.

The numbers of a layer's open inputs and open outputs are linear in the masks,
and its MACs are their product; for a depthwise conv inside a site the second
factor is 1. So all layers together take a few matrix products, whatever the
depth of the network.
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
        gated = [layer for layer in layers if layer.sites]
        # channels of several sites, or grouped convs
        self.others = [layer for layer in gated if not _is_product(layer)]
        self._numbers = self._build([x for x in gated if _is_product(x)])

    def __call__(self, opened: Tensor) -> Tensor:
        """MACs of each image; differentiable.

        Args:
            opened: (N, sum of C) float64, all sites concatenated; 1 is open.

        Returns:
            (N,) float64.
        """
        self._numbers = [x.to(opened.device) for x in self._numbers]
        inputs, outputs, units = self._numbers
        ones = opened.new_ones(len(opened), 1)
        known = torch.cat([opened, ones], dim=1)
        total = ((known @ inputs.T) * (known @ outputs.T)) @ units + self.fixed
        parts = opened.split(self.table.channels, dim=1)
        for layer in self.others:
            total = total + layer.unit * open_pairs(layer, parts)
        return total

    def _build(self, layers: list[LayerMACs]) -> list[Tensor]:
        """Weights of inputs and of outputs, one row per layer, and units."""
        columns = sum(self.table.channels) + 1
        inputs, outputs = torch.zeros(2, len(layers), columns).double()
        outputs[:, -1] = 1
        for row, layer in enumerate(layers):
            inputs[row] = self._weights(layer.in_sites, layer.in_channels)
            if not layer.is_inside:
                outputs[row] = self._weights(
                    layer.out_sites, layer.out_channels
                )
        units = torch.tensor([x.unit for x in layers], dtype=torch.float64)
        return [inputs, outputs, units]

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
    """Whether the MACs are a product of two factors linear in the masks."""
    inputs = _is_linear(layer.in_sites, layer.in_channels)
    outputs = _is_linear(layer.out_sites, layer.out_channels)
    return (layer.groups == 1 or layer.is_inside) and inputs and outputs


def _is_linear(side: Sequence[SitePositions], channels: int) -> bool:
    """Whether no channel belongs to more than one site."""
    count = torch.zeros(channels, dtype=torch.int64)
    for _, positions in side:
        if positions is None:
            count += 1
        else:
            count += torch.tensor([p >= 0 for p in positions])
    return not len(count) or int(count.max()) <= 1
