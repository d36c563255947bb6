"""Lowering of operations that move elements, mostly to other layouts."""

from __future__ import annotations

import math
from dataclasses import replace

from fgc_mm.deploy.graph.atoms import Atom, Layout
from fgc_mm.deploy.graph.emit import flat_layout
from fgc_mm.deploy.graph.ir import Node, Op
from fgc_mm.deploy.graph.placing import (
    NotThis,
    Placing,
    axis_of,
)


def permute(low: Placing, node: Node) -> Layout:
    return low.of(node.inputs[0]).permuted(node.dims)


def reshape(low: Placing, node: Node) -> Layout:
    layout = low.of(node.inputs[0])
    shaped = layout.reshaped(node.shape)
    if shaped is None:
        value = low.out.storage(1, 1, math.prod(node.shape))
        flat = flat_layout(value, node.inputs[0].shape)
        low.move(layout, flat)
        shaped = flat.reshaped(node.shape)
    return shaped


def expand(low: Placing, node: Node) -> Layout:
    return low.of(node.inputs[0]).expanded(node.shape)


def slice_(low: Placing, node: Node) -> Layout:
    (x,) = node.inputs
    layout, dim = low.of(x), node.dim
    size = node.shape[dim]
    if size == x.shape[dim]:
        return layout
    if len(layout.dims[dim]) > 1:
        layout = low.copied(layout, x.shape)
    if not layout.dims[dim]:
        return layout
    return layout.sliced(dim, node.start, size, node.step)


def select(low: Placing, node: Node) -> Layout:
    (x,) = node.inputs
    layout = low.of(x)
    if len(layout.dims[node.dim]) > 1:
        layout = low.copied(layout, x.shape)
    return layout.selected(node.dim, node.index)


def flip(low: Placing, node: Node) -> Layout:
    layout = low.of(node.inputs[0])
    for dim in node.dims:
        layout = layout.flipped(dim)
    return layout


def pad(low: Placing, node: Node) -> Layout:
    (x,) = node.inputs
    y = _new_like(low, node, low.of(x))
    inner = y
    for dim, (before, _) in enumerate(node.pads):
        if node.shape[dim] != x.shape[dim]:
            inner = inner.sliced(dim, before, x.shape[dim], 1)
    low.move(low.of(x), inner, zero=True)
    return y


def _new_like(low: Placing, node: Node, layout: Layout) -> Layout:
    """A new layout with the axes of another one."""
    shape = node.shape
    axes = [{axis_of(a) for a in dim} for dim in layout.dims]
    if len(shape) in (2, 3, 4) and shape[0] == 1:
        usual = {2: (0,), 3: (2, 0), 4: (0, 1, 2)}[len(shape)]
        if all(a <= {b} for a, b in zip(axes[1:], usual)):
            return low.usual(shape)
    steps, box, dims = [1, 1, 1], [1, 1, 1], [()] * len(shape)
    for dim in reversed(range(len(shape))):
        if shape[dim] == 1:
            continue
        axis = max(axes[dim]) if axes[dim] else 2
        step = [0, 0, 0]
        step[axis] = box[axis]
        dims[dim] = (Atom(shape[dim], tuple(step)),)
        box[axis] *= shape[dim]
        steps[axis] = box[axis]
    return Layout(low.out.storage(*box), (0, 0, 0), tuple(dims))


def concat(low: Placing, node: Node) -> Layout:
    known = [x for x in node.inputs if x.op is not Op.CONSTANT]
    y = _new_like(low, node, low.of((known or node.inputs)[0]))
    start = 0
    for x in node.inputs:
        size = x.shape[node.dim]
        part = y
        if node.shape[node.dim] != size:
            part = y.sliced(node.dim, start, size, 1)
        low.move(low.of(x), part)
        start += size
    return y


def take(low: Placing, node: Node) -> Layout:
    """A gather with constant indices: one move per run of indices."""
    (x,) = node.inputs
    layout, dim = low.of(x), node.dim
    if len(layout.dims[dim]) > 1:
        layout = low.copied(layout, x.shape)
    interleaved = _interleaved(layout, dim, node.index.tolist())
    if interleaved is not None:
        return interleaved
    runs = _runs(node.index.tolist())
    if len(runs) > MOST_RUNS:
        raise NotThis('a gather')
    y = _new_like(low, node, layout)
    start = 0
    for first, count, step in runs:
        part, source = y, layout
        if y.dims[dim]:
            part = y.sliced(dim, start, count, 1)
        if layout.dims[dim]:
            source = _run_of(layout, dim, first, count, step)
        low.move(source, part)
        start += count
    return y


def clear(low: Placing, node: Node) -> Layout:
    x, box, layout = low.channels_at(node.inputs[0], node.channel_dim)
    y = Layout(low.out.storage(*box), (0, 0, 0), layout.dims)
    low.move(Layout(x, (0, 0, 0), layout.dims), y, True, node.reads)
    return y


MOST_RUNS = 64  # of a gather with constant indices


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
    layout: Layout, dim: int, numbers: list[int]
) -> Layout | None:
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
    dims[dim] = (Atom(each, atom.step), atom.scaled(each, groups))
    return replace(layout, dims=tuple(dims))


def _run_of(
    layout: Layout, dim: int, first: int, count: int, step: int
) -> Layout:
    if count == 1:
        step = 1
    return layout.sliced(dim, first, count, step)
