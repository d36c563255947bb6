"""Lowering of elementwise operations and norms."""

from __future__ import annotations

from fgc_mm.deploy.graph.emit import NotSupported
from fgc_mm.deploy.graph.ir import Node, Op
from fgc_mm.deploy.graph.layout_tracker import LayoutTracker
from fgc_mm.deploy.graph.value_layout import ValueLayout
from fgc_mm.runtime import format as f


def unary(low: LayoutTracker, node: Node) -> ValueLayout:
    x = low.filling(low.whole(node.inputs[0]))
    y = low.new_like(x)
    low.out.add(f.Unary(x.value, y.value, low.writes(node, y), node.act))
    return y


def affine(low: LayoutTracker, node: Node) -> ValueLayout:
    x = low.channels_at(node.inputs[0], node.dim)
    y = low.new_like(x)
    listed = low.writes(node, y)
    scale, shift, slope = map(
        low.out.optional, (node.scale, node.shift, node.slope)
    )
    low.out.add(
        f.Affine(x.value, y.value, listed, scale, shift, slope, node.act)
    )
    return y


def binary(low: LayoutTracker, node: Node) -> ValueLayout:
    whole = [x for x in node.inputs if x.shape == node.shape]
    whole = [x for x in whole if x.op is not Op.CONSTANT] or whole
    if whole:
        y = low.new_like(low.whole(whole[0]))
    elif len(node.shape) in (2, 3, 4) and node.shape[0] == 1:
        y = low.new(node.shape)
    else:
        y = _in_axes(low, node)
    x1, x2 = (low.broadcast_to(x, y) for x in node.inputs)
    listed = low.writes(node, y)
    low.out.add(f.Binary(x1, x2, y.value, listed, node.math, node.act))
    return y


def _in_axes(low: LayoutTracker, node: Node) -> ValueLayout:
    """A new layout; dimensions in the same inputs share an axis."""
    rank = len(node.shape)
    shapes = [(1,) * (rank - len(x.shape)) + x.shape for x in node.inputs]
    axes: list[int] = []
    known, axis = None, 2
    for d in reversed(range(rank)):
        own = [shape[d] > 1 for shape in shapes]
        if node.shape[d] > 1:
            axis -= known not in (None, own)
            known = own
        if axis < 0:
            raise NotSupported('a sum or product of tensors both broadcast')
        axes.insert(0, axis)
    return low.new(node.shape, axes)


def norm(low: LayoutTracker, node: Node) -> ValueLayout:
    dim = 1 if node.groups else len(node.shape) - 1
    x = low.channels_at(node.inputs[0], dim)
    y = low.new_like(x)
    weight, bias = map(low.out.optional, (node.weight, node.bias))
    low.out.add(
        f.Norm(x.value, y.value, node.groups, node.eps, weight, bias, node.act)
    )
    return y


def softmax(low: LayoutTracker, node: Node) -> ValueLayout:
    x = low.channels_at(node.inputs[0], node.dim)
    y = low.new_like(x)
    low.out.add(f.Softmax(x.value, y.value))
    return y


def topk(low: LayoutTracker, node: Node) -> ValueLayout:
    x = low.channels_at(node.inputs[0], 1)
    y = low.new_like(x)
    low.out.add(f.TopK(x.value, y.value, node.k, int(node.ones)))
    return y
