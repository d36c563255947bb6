"""MACs (multiply-accumulates) per image of a dynamic network.

A layer's MACs are ``unit`` for every pair of an open input channel and an
open output channel of the same group. ``unit`` is kernel elements times
output positions, so the sum over pairs is exact for plain, grouped and
depthwise convs alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fgc_mm.errors import FGCError

COUNTINGS = ('honest', 'fgc-pr')


@dataclass(frozen=True)
class LayerMACs:
    """One conv or linear layer.

    Attributes:
        name: The module's path.
        role: ``'backbone'``, ``'gate'`` or ``'head'`` (neck and classifier).
        unit: MACs of one pair of channels, for one image.
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        groups: Groups of the conv.
        in_site: Index of the site that masks the input, if any.
        out_site: Index of the site that masks the output, if any.
    """

    name: str
    role: str
    unit: int
    in_channels: int
    out_channels: int
    groups: int = 1
    in_site: int | None = None
    out_site: int | None = None

    @property
    def dense(self) -> int:
        """MACs with every channel open."""
        return self.unit * self.in_channels * self.out_channels // self.groups


@dataclass(frozen=True)
class MACsTable:
    """All layers of a gated classifier at one input shape.

    Attributes:
        layers: Every conv and linear layer.
        sites: Name of every site, in the order of the masks.
        channels: Channels of every site.
    """

    layers: tuple[LayerMACs, ...]
    sites: tuple[str, ...]
    channels: tuple[int, ...]

    def of(self, *roles: str) -> int:
        """Dense MACs of the layers of these roles."""
        return sum(x.dense for x in self.layers if x.role in roles)

    @property
    def dense(self) -> int:
        """MACs of the network without gates: the honest base."""
        return self.of('backbone', 'head')

    @property
    def gates(self) -> int:
        """MACs of all gates."""
        return self.of('gate')

    def governed(self, site: int) -> int:
        """Dense MACs of the layers that a site shrinks, by its index."""
        return sum(
            x.dense for x in self.layers if site in (x.in_site, x.out_site)
        )

    def gate_of(self, site: str) -> int:
        """MACs of the gate of a site."""
        prefix = f'backbone.gates.{site.replace(".", "/")}.'
        return sum(x.dense for x in self.layers if x.name.startswith(prefix))

    def base(self, counting: str = 'honest') -> int:
        """What a counting calls 100 %: ``fgc-pr`` leaves the head out."""
        _check_counting(counting)
        return self.of('backbone') if counting == 'fgc-pr' else self.dense


def macs_per_image(
    table: MACsTable, masks: Sequence[Tensor], counting: str = 'honest'
) -> Tensor:
    """MACs that each image costs.

    Args:
        table: The network's layers.
        masks: For every site (N, C); a channel is closed where it is 0.
        counting: ``'honest'`` counts convs, gates and classifier;
            ``'fgc-pr'`` the convs and the gates only, as the published code
            of FGC (arXiv 2111.14302) does.

    Returns:
        (N,) float64, in MACs.

    Raises:
        FGCError: An unknown counting.
    """
    _check_counting(counting)
    opened = [(mask != 0).double() for mask in masks]
    like = opened[0]
    total = like.new_zeros(len(like))
    for layer in table.layers:
        if counting == 'honest' or layer.role != 'head':
            total += layer.unit * _open_pairs(layer, opened)
    return total


def expected_macs(
    table: MACsTable, keep_ratio: float, counting: str = 'honest'
) -> float:
    """MACs per image if every site keeps a share of its channels open.

    The sites are taken as independent of each other; a layer inside one site
    (depthwise) is scaled once.

    Args:
        table: The network's layers.
        keep_ratio: In [0, 1].
        counting: As in :func:`macs_per_image`.

    Raises:
        FGCError: ``keep_ratio`` outside [0, 1], or an unknown counting.
    """
    _check_counting(counting)
    if not 0 <= keep_ratio <= 1:
        raise FGCError(
            f'keep_ratio={keep_ratio} is not a share of channels; give a '
            'number between 0 and 1.'
        )
    counted = [
        x for x in table.layers if counting == 'honest' or x.role != 'head'
    ]
    return sum(
        layer.dense
        * keep_ratio ** len({layer.in_site, layer.out_site} - {None})
        for layer in counted
    )


def _check_counting(counting: str) -> None:
    if counting not in COUNTINGS:
        raise FGCError(
            f'counting={counting!r} is unknown; choose among '
            f'{", ".join(COUNTINGS)}.'
        )


def _open_pairs(layer: LayerMACs, opened: Sequence[Tensor]) -> Tensor:
    """Pairs of open channels; (N,)."""
    n = len(opened[0])
    inputs = _open_in_groups(layer, layer.in_site, layer.in_channels, opened)
    outputs = _open_in_groups(
        layer, layer.out_site, layer.out_channels, opened
    )
    return (inputs * outputs).sum(dim=1).expand(n)


def _open_in_groups(
    layer: LayerMACs,
    site: int | None,
    channels: int,
    opened: Sequence[Tensor],
) -> Tensor:
    """Open channels of every group; (N or 1, groups)."""
    if site is None:
        size = channels / layer.groups
        return torch.full((1, layer.groups), size, dtype=torch.float64).to(
            opened[0].device
        )
    return opened[site].unflatten(1, (layer.groups, -1)).sum(dim=2)
