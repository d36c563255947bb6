"""Lowering of operations that move elements, mostly to other layouts."""

from __future__ import annotations

from dataclasses import replace

from fgc_mm.deploy.graph.emit import NotSupported
from fgc_mm.deploy.graph.ir import Node, Op
from fgc_mm.deploy.graph.layout_tracker import LayoutTracker, axis_of
from fgc_mm.deploy.graph.value_layout import (
    DEFAULT_AXES,
    DimFactor,
    ValueLayout,
    flat_axes,
)


def permute(low: LayoutTracker, node: Node) -> ValueLayout:
    return low.layout_of(node.inputs[0]).permuted(node.dims)


def reshape(low: LayoutTracker, node: Node) -> ValueLayout:
    layout = low.layout_of(node.inputs[0])
    shaped = layout.reshaped(node.shape)
    if shaped is not None:
        return shaped
    flat = low.out.move(layout, low.new(layout.shape, flat_axes(layout.shape)))
    return ValueLayout.packed(flat.value, node.shape, flat_axes(node.shape))


def expand(low: LayoutTracker, node: Node) -> ValueLayout:
    return low.layout_of(node.inputs[0]).expanded(node.shape)


def slice_(low: LayoutTracker, node: Node) -> ValueLayout:
    layout, dim = _of_one_factor(low, node), node.dim
    if not layout.dims[dim]:
        return layout
    return layout.sliced(dim, node.start, node.shape[dim], node.step)


def select(low: LayoutTracker, node: Node) -> ValueLayout:
    return _of_one_factor(low, node).selected(node.dim, node.index)


def _of_one_factor(low: LayoutTracker, node: Node) -> ValueLayout:
    """The input's layout with at most one factor in the node's dimension."""
    layout = low.layout_of(node.inputs[0])
    one = len(layout.dims[node.dim]) <= 1
    return layout if one else low.copy_to_new(layout)


def pad(low: LayoutTracker, node: Node) -> ValueLayout:
    (x,) = node.inputs
    y = _new_like(low, node, low.layout_of(x))
    inner = y
    for dim, (before, _) in enumerate(node.pads):
        if node.shape[dim] != x.shape[dim]:
            inner = inner.sliced(dim, before, x.shape[dim], 1)
    low.out.move(low.layout_of(x), inner, zero=True)
    return y


def _new_like(
    low: LayoutTracker, node: Node, layout: ValueLayout
) -> ValueLayout:
    """A new layout with the axes of another one."""
    shape = node.shape
    found = [
        {axis_of(a.step) for a in dim if any(a.step)} for dim in layout.dims
    ]
    default = DEFAULT_AXES.get(len(shape)) if shape[0] == 1 else None
    if default and all(a <= {b} for a, b in zip(found[1:], default[1:])):
        return low.new(shape)
    return low.new(shape, [max(axes, default=2) for axes in found])


def concat(low: LayoutTracker, node: Node) -> ValueLayout:
    known = [x for x in node.inputs if x.op is not Op.CONSTANT]
    y = _new_like(low, node, low.layout_of((known or node.inputs)[0]))
    start = 0
    for x in node.inputs:
        size = x.shape[node.dim]
        part = y
        if node.shape[node.dim] != size:
            part = y.sliced(node.dim, start, size, 1)
        low.out.move(low.layout_of(x), part)
        start += size
    return y


def take(low: LayoutTracker, node: Node) -> ValueLayout:
    """A gather with constant indices: one move per run of indices."""
    layout, dim = _of_one_factor(low, node), node.dim
    interleaved = _interleaved(layout, dim, node.index.tolist())
    if interleaved is not None:
        return interleaved
    runs = _runs(node.index.tolist())
    if len(runs) > MAX_RUNS:
        raise NotSupported('a gather')
    if len(runs) == 1 and layout.dims[dim]:
        return layout.sliced(dim, *runs[0])
    y = _new_like(low, node, layout)
    start = 0
    for first, count, step in runs:
        part, source = y, layout
        if y.dims[dim]:
            part = y.sliced(dim, start, count, 1)
        if layout.dims[dim]:
            source = layout.sliced(dim, first, count, step)
        low.out.move(source, part)
        start += count
    return y


def clear(low: LayoutTracker, node: Node) -> ValueLayout:
    x = low.channels_at(node.inputs[0], node.channel_dim)
    return low.out.move(x, low.new_like(x), True, node.reads)


MAX_RUNS = 64  # of a gather with constant indices


def _runs(numbers: list[int]) -> list[tuple[int, int, int]]:
    """Runs (first, count, step) of evenly spaced indices."""
    runs, at = [], 0
    while at < len(numbers):
        step = numbers[at + 1] - numbers[at] if at + 1 < len(numbers) else 1
        end = at + 1
        while end < len(numbers) and numbers[end] - numbers[end - 1] == step:
            end += 1
        runs.append((numbers[at], end - at, step))
        at = end
    return runs


def _interleaved(
    layout: ValueLayout, dim: int, numbers: list[int]
) -> ValueLayout | None:
    """A channel shuffle as a layout with reordered factors."""
    count = len(numbers)
    if len(layout.dims[dim]) != 1 or layout.dims[dim][0].size != count:
        return None
    each = numbers[1] if count > 1 else 0  # channels of a group
    if each < 2 or count % each:
        return None
    groups = count // each
    wanted = [g * each + k for k in range(each) for g in range(groups)]
    if numbers != wanted:
        return None
    (atom,) = layout.dims[dim]
    dims = list(layout.dims)
    dims[dim] = (DimFactor(each, atom.step), atom.scaled(each, groups))
    return replace(layout, dims=tuple(dims))
