"""Lowering of pools, means and resizing."""

from __future__ import annotations

import torch

from fgc_mm.deploy.graph.emit import NotSupported
from fgc_mm.deploy.graph.ir import Node
from fgc_mm.deploy.graph.layout_tracker import CHANNEL, LayoutTracker
from fgc_mm.deploy.graph.lower_products import product
from fgc_mm.deploy.graph.value_layout import ValueLayout, dim_of
from fgc_mm.runtime import format as f


def pool(low: LayoutTracker, node: Node) -> ValueLayout:
    x = low.map(node.inputs[0])
    y = low.new(node.shape)
    sides = (node.kernel, node.stride, node.padding, node.dilation)
    low.out.add(
        f.Pool(
            x,
            y.value,
            low.writes(node, y),
            int(node.average),
            *sides,
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
    free = [d for d in range(len(x.shape)) if d not in node.dims]
    if not free:
        raise NotSupported('a mean over all dimensions')
    dim = rest[0] if rest else free[0]
    layout = low.channels_at(x, dim)
    channels = x.shape[dim]
    dims = [
        dim_of(channels, CHANNEL) if d == dim else ()
        for d in range(len(x.shape))
        if node.keep or d not in node.dims
    ]
    y = ValueLayout(low.out.storage(channels, 1, 1), tuple(dims))
    low.out.add(f.Mean(layout.value, y.value, low.writes(node, y), node.act))
    return y


def _mean_of_channels(low: LayoutTracker, node: Node) -> ValueLayout:
    """A mean over channels: a 1 x 1 conv with weights 1 / C."""
    (x,) = node.inputs
    if len(node.dims) != 1:
        raise NotSupported('a mean over some of several dimensions')
    (dim,) = node.dims
    layout = low.channels_at(x, dim)
    channels, height, width = layout.box
    y = low.out.storage(1, height, width)
    weight = torch.full((1, channels, 1, 1), 1 / channels)
    low.out.add(product(low, node, layout.value, y, weight))
    dims = [() if d == dim else atoms for d, atoms in enumerate(layout.dims)]
    if not node.keep:
        del dims[dim]
    return ValueLayout(y, tuple(dims))


def resize(low: LayoutTracker, node: Node) -> ValueLayout:
    x = low.map(node.inputs[0])
    y = low.new(node.shape)
    low.out.add(
        f.Resize(
            x,
            y.value,
            low.writes(node, y),
            int(node.bilinear),
            int(node.corners),
            node.scale,
        )
    )
    return y
