"""Lowering of elementwise operations and norms."""

from __future__ import annotations

from fgc_mm.deploy.graph.ir import Node, Op
from fgc_mm.deploy.graph.layout_tracker import (
    LayoutTracker,
    NotSupported,
)
from fgc_mm.deploy.graph.value_layout import (
    Dim,
    ValueLayout,
    along,
    dim_of,
    extents,
)
from fgc_mm.runtime import format as f


def _elementwise(
    low: LayoutTracker, node: Node, dim: int | None = None
) -> tuple[int, ValueLayout]:
    """The value of an input, and the layout of the result."""
    (first, *_) = node.inputs
    if dim is not None:
        x, box, layout = low.channels_at(first, dim)
    else:
        layout = low.layout_of(first)
        if extents(layout.atoms()) is None:
            layout = low.copy_to_new(layout, first.shape)
        box = layout.box
        x = low.out.view(layout.value, layout.start, box)
    y = ValueLayout(low.out.storage(*box), (0, 0, 0), layout.dims)
    return x, y


def unary(low: LayoutTracker, node: Node) -> ValueLayout:
    x, y = _elementwise(low, node)
    listed = low.writes(node, y)
    low.out.add(f.Unary(x, y.value, listed, node.act))
    return y


def affine(low: LayoutTracker, node: Node) -> ValueLayout:
    x, y = _elementwise(low, node, node.dim)
    scale, shift, slope = map(
        low.out.optional, (node.scale, node.shift, node.slope)
    )
    listed = low.writes(node, y)
    low.out.add(f.Affine(x, y.value, listed, scale, shift, slope, node.act))
    return y


def binary(low: LayoutTracker, node: Node) -> ValueLayout:
    whole = [x for x in node.inputs if x.shape == node.shape]
    whole = [x for x in whole if x.op is not Op.CONSTANT] or whole
    if whole:
        like = _whole_layout(low, whole[0])
        y = ValueLayout(low.out.storage(*like.box), (0, 0, 0), like.dims)
    elif len(node.shape) in (2, 3, 4) and node.shape[0] == 1:
        y = low.new_default(node.shape)
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
    box, known, axis = [1, 1, 1], None, 2
    dims: list[Dim] = [()] * rank
    for d in reversed(range(rank)):
        if node.shape[d] == 1:
            continue
        own = [shape[d] > 1 for shape in shapes]
        axis -= known not in (None, own)
        if axis < 0:
            raise NotSupported('a sum or product of tensors both broadcast')
        known = own
        dims[d] = dim_of(node.shape[d], along(axis, box[axis]))
        box[axis] *= node.shape[d]
    return ValueLayout(low.out.storage(*box), (0, 0, 0), tuple(dims))


def _whole_layout(low: LayoutTracker, node: Node) -> ValueLayout:
    """The layout of a tensor that fills a box; copied if it does not."""
    layout = low.layout_of(node)
    if extents(layout.atoms()) is None:
        layout = low.layouts[node] = low.copy_to_new(layout, node.shape)
    return layout


def layer_norm(low: LayoutTracker, node: Node) -> ValueLayout:
    x, y = _elementwise(low, node, len(node.shape) - 1)
    _add_norm(low, node, x, y.value, groups=0)
    return y


def group_norm(low: LayoutTracker, node: Node) -> ValueLayout:
    x, y = _elementwise(low, node, 1)
    _add_norm(low, node, x, y.value, node.groups)
    return y


def _add_norm(
    low: LayoutTracker, node: Node, x: int, y: int, groups: int
) -> None:
    weight, bias = map(low.out.optional, (node.weight, node.bias))
    low.out.add(f.Norm(x, y, groups, node.eps, weight, bias, node.act))


def softmax(low: LayoutTracker, node: Node) -> ValueLayout:
    x, y = _elementwise(low, node, node.dim)
    low.out.add(f.Softmax(x, y.value))
    return y


def topk(low: LayoutTracker, node: Node) -> ValueLayout:
    x, y = _elementwise(low, node, 1)
    low.out.add(f.TopK(x, y.value, node.k, int(node.ones)))
    return y
