"""MACs (multiply-accumulates) per image of a dynamic network.

A layer's MACs are ``unit`` for every pair of an open input channel and an
open output channel of the same group. ``unit`` is kernel elements times
output positions, so the sum over pairs is exact for plain, grouped and
depthwise convs. Products outside a layer's own forward (the two products of
attention, functional calls) count with all their MACs, independently of the
gates.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from fgc_mm.errors import FGCError, check_choice
from fgc_mm.functional.channel_groups import GroupSizes
from fgc_mm.functional.channel_mask import spread_mask

COUNTINGS = ('honest', 'fgc-pr', 'ftwt')
SitePositions = tuple[int, tuple[int, ...] | None]


@dataclass(frozen=True)
class LayerMACs:
    """One tensor product: of a conv or linear layer, or any other.

    Attributes:
        name: The module's path; for other products see ``source``.
        role: ``'backbone'``, ``'gate'`` or ``'head'`` (neck and classifier).
        unit: MACs of one pair of channels, for one image.
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        groups: Groups of the conv.
        in_sites: The sites that mask the input: index, and for every input
            channel the index of the site's channel, or -1; ``None``: the
            site's channels in order.
        out_sites: The sites of the output channels, likewise.
        source: ``'layer'`` for products of a conv or linear layer in its own
            forward, the only ones that sites can shrink; ``'parameter'`` for
            other products with a parameter (``F.linear`` on a slice of a
            weight), named after the parameter; ``'tensors'`` for products
            without a parameter (attention), named after the running module.
        before: MACs before a channel map shrank the layer; ``None`` if none
            did.
    """

    name: str
    role: str
    unit: int
    in_channels: int
    out_channels: int
    groups: int = 1
    in_sites: tuple[SitePositions, ...] = ()
    out_sites: tuple[SitePositions, ...] = ()
    source: str = 'layer'
    before: int | None = None

    @property
    def sites(self) -> set[int]:
        """Indices of all sites that shrink this layer."""
        return {site for site, _ in (*self.in_sites, *self.out_sites)}

    @property
    def is_inside(self) -> bool:
        """Whether it is depthwise, with the same sites on both sides."""
        depthwise = 1 < self.groups == self.in_channels == self.out_channels
        same_sites = self.in_sites == self.out_sites
        return depthwise and same_sites and bool(self.in_sites)

    @property
    def dense(self) -> int:
        """MACs with every channel open."""
        return self.unit * self.in_channels * self.out_channels // self.groups

    @property
    def whole(self) -> int:
        """MACs in the network before compaction."""
        return self.dense if self.before is None else self.before


@dataclass(frozen=True)
class MACsTable:
    """All tensor products of a gated classifier at one input shape.

    Attributes:
        layers: Every product, in the order of the forward pass.
        sites: Name of every site, in the order of the masks.
        channels: Channels of every site.
        group_sizes: For every site the channels of each decision of its
            gate, ``None`` for one decision per channel; empty if all are so.
    """

    layers: tuple[LayerMACs, ...]
    sites: tuple[str, ...]
    channels: tuple[int, ...]
    group_sizes: tuple[GroupSizes, ...] = ()

    def of(self, *roles: str) -> int:
        """Dense MACs of the layers of these roles."""
        return sum(x.dense for x in self.layers if x.role in roles)

    @property
    def dense(self) -> int:
        """MACs of the current network, without gates."""
        return self.of('backbone', 'head')

    @property
    def gates(self) -> int:
        """MACs of all gates."""
        return self.of('gate')

    def site_macs(self, site: int) -> int:
        """Dense MACs of the layers that a site shrinks, by its index."""
        return sum(x.dense for x in self.layers if site in x.sites)

    def base(self, counting: str = 'honest') -> int:
        """The MACs that count as 100 %.

        Those of the dense network before compaction, if a channel map has
        shrunk it; the published countings exclude the head.
        """
        return sum(x.whole for x in self._network(counting))

    def full(self, counting: str = 'honest') -> int:
        """MACs of the current network in a counting, without gates."""
        return sum(x.dense for x in self._network(counting))

    def outside_layers(self, counting: str = 'honest') -> int:
        """The MACs of :meth:`full` outside of layers' own forward.

        They do not depend on the gates.
        """
        layers = self._network(counting)
        return sum(x.dense for x in layers if x.source != 'layer')

    def _network(self, counting: str) -> list[LayerMACs]:
        return [x for x in self.counted(counting) if x.role != 'gate']

    def counted(self, counting: str = 'honest') -> list[LayerMACs]:
        """The products of a counting; see :func:`macs_per_image`."""
        check_choice(f'counting={counting!r}', counting, COUNTINGS)
        if counting == 'honest':
            return list(self.layers)
        if counting == 'fgc-pr':
            return [x for x in self.layers if x.role != 'head']
        return _chain_layers([x for x in self.layers if x.role == 'backbone'])


def macs_per_image(
    table: MACsTable, masks: Sequence[Tensor], counting: str = 'honest'
) -> Tensor:
    """MACs of each image.

    Args:
        table: The network's layers.
        masks: For every site (N, C); a channel is closed where it is 0.
        counting: ``'honest'`` counts backbone, gates, neck and classifier;
            ``'fgc-pr'`` backbone and gates only, like the published code of
            FGC (arXiv 2111.14302); ``'ftwt'`` the backbone only, each layer
            reading only the open channels of the layer before it, even
            across a residual sum (arXiv 2110.08232; it overstates the
            savings).

    Returns:
        (N,) float64, in MACs.

    Raises:
        FGCError: An unknown counting.
    """
    return _macs(table, [(mask != 0).double() for mask in masks], counting)


def expected_macs(
    table: MACsTable, keep_ratio: float, counting: str = 'honest'
) -> float:
    """MACs per image if every site keeps a fraction of its channels open.

    Treats the sites as independent; a depthwise conv inside one site is
    scaled once.

    Args:
        table: The network's layers.
        keep_ratio: In [0, 1].
        counting: As in :func:`macs_per_image`.

    Raises:
        FGCError: ``keep_ratio`` outside [0, 1], or an unknown counting.
    """
    if not 0 <= keep_ratio <= 1:
        raise FGCError(
            f'keep_ratio={keep_ratio} is not a fraction of channels; give a '
            'number between 0 and 1.'
        )
    opened = [
        torch.full((1, channels), keep_ratio, dtype=torch.float64)
        for channels in table.channels
    ]
    return _macs(table, opened, counting).item()


def _macs(table: MACsTable, opened: Sequence[Tensor], counting: str) -> Tensor:
    """MACs of each image, (N,), for channels that are open in part."""
    layers = table.counted(counting)
    fixed = sum(layer.dense for layer in layers if not layer.sites)
    total = torch.full_like(opened[0][:, 0], fixed)
    for layer in layers:
        if layer.sites:
            total = total + layer.unit * open_pairs(layer, opened)
    return total


def _chain_layers(products: list[LayerMACs]) -> list[LayerMACs]:
    """Let each layer read the output of the one before, even across sums."""
    layers = [x for x in products if x.source == 'layer']
    chained = [x for x in products if x.source != 'layer'] + layers[:1]
    for before, layer in pairwise(layers):
        if not layer.in_sites and before.out_channels == layer.in_channels:
            layer = replace(layer, in_sites=before.out_sites)
        chained.append(layer)
    return chained


def open_pairs(layer: LayerMACs, opened: Sequence[Tensor]) -> Tensor:
    """Number of pairs of open channels of each image; (N,), differentiable.

    Args:
        layer: The layer.
        opened: For every site (N, C); 1 open, 0 closed, or the probability
            of open.
    """
    inputs = _open_channels(layer.in_sites, layer.in_channels, opened)
    if layer.is_inside:
        return inputs.sum(dim=1)
    outputs = _open_channels(layer.out_sites, layer.out_channels, opened)
    inputs = inputs.unflatten(1, (layer.groups, -1)).sum(dim=2)
    outputs = outputs.unflatten(1, (layer.groups, -1)).sum(dim=2)
    return (inputs * outputs).sum(dim=1).expand(len(opened[0]))


def _open_channels(
    sites: Sequence[SitePositions], channels: int, opened: Sequence[Tensor]
) -> Tensor:
    """1 for an open channel; (N, channels), or one row if all are open."""
    result = opened[0].new_ones(1, channels)
    for site, positions in sites:
        result = result * spread_mask(opened[site], positions)
    return result
