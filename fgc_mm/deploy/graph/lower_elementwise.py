"""Lowering of elementwise operations and norms."""

from __future__ import annotations

from fgc_mm.deploy.graph.ir import Node, Op
from fgc_mm.deploy.graph.layout_tracker import (
    LayoutTracker,
    NotSupported,
)
from fgc_mm.deploy.graph.value_layout import DimFactor, ValueLayout, extents
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
        box = extents(layout.atoms())
        if box is None:
            layout = low.copy_to_new(layout, first.shape)
            box = extents(layout.atoms())
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
    numbers = [
        low.out.optional(n) for n in (node.scale, node.shift, node.slope)
    ]
    listed = low.writes(node, y)
    low.out.add(f.Affine(x, y.value, listed, *numbers, node.act))
    return y


def binary(low: LayoutTracker, node: Node) -> ValueLayout:
    first, second = node.inputs
    whole = [x for x in node.inputs if x.shape == node.shape]
    whole = [x for x in whole if x.op is not Op.CONSTANT] or whole
    if not whole:
        return _outer(low, node)
    like = _whole_layout(low, whole[0])
    y = ValueLayout(
        low.out.storage(*extents(like.atoms())), (0, 0, 0), like.dims
    )
    xs = [low.broadcast_to(x, like) for x in (first, second)]
    listed = low.writes(node, y)
    low.out.add(f.Binary(*xs, y.value, listed, node.math, node.act))
    return y


def _outer(low: LayoutTracker, node: Node) -> ValueLayout:
    """A binary operation that broadcasts both inputs."""
    if len(node.shape) in (2, 3, 4) and node.shape[0] == 1:
        y = low.new_default(node.shape)
    else:
        y = _in_axes(low, node)
    xs = [low.broadcast_to(x, y) for x in node.inputs]
    listed = low.writes(node, y)
    low.out.add(f.Binary(*xs, y.value, listed, node.math, node.act))
    return y


def _in_axes(low: LayoutTracker, node: Node) -> ValueLayout:
    """A new layout; dimensions in the same inputs share an axis."""
    rank = len(node.shape)
    shapes = [(1,) * (rank - len(x.shape)) + x.shape for x in node.inputs]
    box, dims, known, axis = [1, 1, 1], [()] * rank, None, 2
    for d in reversed(range(rank)):
        if node.shape[d] == 1:
            continue
        own = [shape[d] > 1 for shape in shapes]
        axis -= known not in (None, own)
        if axis < 0:
            raise NotSupported('a sum or product of tensors both broadcast')
        step = [0, 0, 0]
        step[axis], known = box[axis], own
        dims[d] = (DimFactor(node.shape[d], tuple(step)),)
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
    numbers = map(low.out.optional, (node.weight, node.bias))
    low.out.add(f.Norm(x, y.value, 0, node.eps, *numbers, node.act))
    return y


def group_norm(low: LayoutTracker, node: Node) -> ValueLayout:
    x, y = _elementwise(low, node, 1)
    numbers = map(low.out.optional, (node.weight, node.bias))
    low.out.add(f.Norm(x, y.value, node.groups, node.eps, *numbers, node.act))
    return y


def softmax(low: LayoutTracker, node: Node) -> ValueLayout:
    x, y = _elementwise(low, node, node.dim)
    low.out.add(f.Softmax(x, y.value))
    return y


def topk(low: LayoutTracker, node: Node) -> ValueLayout:
    x, y = _elementwise(low, node, 1)
    low.out.add(f.TopK(x, y.value, node.k, int(node.ones)))
    return y
