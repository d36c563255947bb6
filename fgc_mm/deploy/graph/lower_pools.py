"""Lowering of pools, means and resizing."""

from __future__ import annotations

import torch

from fgc_mm.deploy.graph.ir import ALL, Node
from fgc_mm.deploy.graph.layout_tracker import (
    CHANNEL,
    LayoutTracker,
    NotSupported,
)
from fgc_mm.deploy.graph.value_layout import Dim, ValueLayout, dim_of
from fgc_mm.runtime import format as f


def pool(low: LayoutTracker, node: Node) -> ValueLayout:
    x = low.map(node.inputs[0])
    y = low.new_default(node.shape)
    listed = low.writes(node, y)
    low.out.add(
        f.Pool(
            x,
            y.value,
            listed,
            int(node.average),
            tuple(node.kernel),
            tuple(node.stride),
            tuple(node.padding),
            tuple(node.dilation),
            int(node.outside),
            node.act,
        )
    )
    return y


def mean(low: LayoutTracker, node: Node) -> ValueLayout:
    """A mean over all positions of channels."""
    (x,) = node.inputs
    rest = [
        d for d, size in enumerate(x.shape) if size > 1 and d not in node.dims
    ]
    if len(rest) > 1:
        return _mean_of_channels(low, node)
    dim = rest[0] if rest else _free_dim(x.shape, node.dims)
    value, box, _ = low.channels_at(x, dim)
    y = low.out.storage(box[0], 1, 1)
    dims: list[Dim] = [()] * len(x.shape)
    dims[dim] = dim_of(box[0], CHANNEL)
    kept = [
        atoms
        for d, atoms in enumerate(dims)
        if node.keep or d not in node.dims
    ]
    result = ValueLayout(y, (0, 0, 0), tuple(kept))
    listed = f.ALL
    if node.writes is not ALL and box[0] == node.writes.channels:
        listed = low.list_index(node.writes)
    low.out.add(f.Mean(value, y, listed, node.act))
    return result


def _mean_of_channels(low: LayoutTracker, node: Node) -> ValueLayout:
    """A mean over channels: a 1 x 1 conv with weights 1 / C."""
    (x,) = node.inputs
    if len(node.dims) != 1:
        raise NotSupported('a mean over some of several dimensions')
    (dim,) = node.dims
    value, box, layout = low.channels_at(x, dim)
    y = low.out.storage(1, *box[1:])
    weight = low.out.weights(torch.full((box[0],), 1 / box[0]))
    low.out.add(
        f.Conv(
            value,
            y,
            f.NONE,
            f.ALL,
            f.ALL,
            1,
            (1, 1),
            (1, 1),
            (0, 0),
            (1, 1),
            weight,
            box[0],
            1,
            f.NONE,
            node.act,
        )
    )
    dims = [() if d == dim else atoms for d, atoms in enumerate(layout.dims)]
    if not node.keep:
        del dims[dim]
    return ValueLayout(y, (0, 0, 0), tuple(dims))


def resize(low: LayoutTracker, node: Node) -> ValueLayout:
    x = low.map(node.inputs[0])
    y = low.new_default(node.shape)
    listed = low.writes(node, y)
    low.out.add(
        f.Resize(
            x,
            y.value,
            listed,
            int(node.bilinear),
            int(node.corners),
            node.scale,
        )
    )
    return y


def _free_dim(shape: tuple[int, ...], dims: tuple[int, ...]) -> int:
    return next(d for d in range(len(shape)) if d not in dims)
