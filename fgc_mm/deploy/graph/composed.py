"""Conversion of aten operations that need several graph operations."""

from __future__ import annotations

import math

import torch

from fgc_mm.deploy.graph.from_aten import (
    CONVERTERS,
    Conversion,
    aten,
    converts,
    expanded,
    mean_of,
    pair,
    part_of,
)
from fgc_mm.deploy.graph.ir import Node, Op
from fgc_mm.runtime.format import Act, Activation

MAX_WINDOW = 64  # elements of a window, each of which is a slice


@converts(aten.roll.default)
def _roll(c: Conversion) -> Node | None:
    """Concatenation of the two parts, swapped."""
    if not c['dims']:
        return None
    x = c.node()
    for shift, dim in zip(c['shifts'], c['dims']):
        dim %= len(x.shape)
        size = x.shape[dim]
        cut = size - shift % size
        if cut == size:
            continue
        parts = [part_of(c, x, dim, cut, size), part_of(c, x, dim, 0, cut)]
        x = c.emit(c.make(Op.CONCAT, *parts, shape=x.shape, dim=dim))
    return x


@converts(aten.stack.default)
def _stack(c: Conversion) -> Node:
    dim = (c['dim'] or 0) % c.result.dim()
    parts = [c.node_of(x) for x in c['tensors']]
    shape = (*parts[0].shape[:dim], 1, *parts[0].shape[dim:])
    parts = [c.emit(c.make(Op.RESHAPE, x, shape=shape)) for x in parts]
    return c.make(Op.CONCAT, *parts, dim=dim)


@converts(aten.slice_scatter.default)
def _slice_scatter(c: Conversion) -> Node | None:
    """Concatenation of the part before, the new part and the part after."""
    x, dim = c.node(), c.dim()
    size = x.shape[dim]
    start, stop, step = slice(c['start'], c['end'], c['step']).indices(size)
    if step != 1:
        return None
    if start >= stop:
        return x
    if (start, stop) == (0, size):
        return c.node('src')
    before = [part_of(c, x, dim, 0, start)] if start > 0 else []
    after = [part_of(c, x, dim, stop, size)] if stop < size else []
    return c.make(Op.CONCAT, *before, c.node('src'), *after, dim=dim)


@converts(aten.copy.default)
def _copy(c: Conversion) -> Node | None:
    """The source, broadcast to the destination's shape."""
    if c['self'].dtype != c['src'].dtype:
        return None
    return expanded(c, c.node('src'))


@converts(aten.sum.dim_IntList)
def _sum(c: Conversion) -> Node | None:
    """Mean times the number of elements."""
    if not _are_floats(c):
        return None
    return _of_means(c, c.node())


@converts(aten.amax.default)
def _largest(c: Conversion) -> Node | None:
    """Of a vector per image: the sum of its largest entry and zeros."""
    x = c.node()
    last = [d % len(x.shape) for d in c['dim'] or ()] == [1]
    if len(x.shape) != 2 or not (last and c['keepdim'] and _are_floats(c)):
        return None
    largest = c.make(Op.TOPK, x, shape=x.shape, k=1, ones=False)
    ones = torch.ones(1, x.shape[1])
    return c.make(Op.LINEAR, c.emit(largest), weight=ones, bias=None)


@converts(aten.linalg_vector_norm.default)
def _norm(c: Conversion) -> Node | None:
    """Square root of the sum of squares."""
    if c['ord'] != 2 or c['dim'] is None or not _are_floats(c):
        return None
    x = c.node()
    act = Activation(Act.SQUARE)
    square = c.emit(c.make(Op.UNARY, x, shape=x.shape, act=act))
    total = c.emit(_of_means(c, square))
    return c.make(Op.UNARY, total, act=Activation(Act.SQRT))


def _are_floats(c: Conversion) -> bool:
    return c['self'].dtype == c.result.dtype == torch.float32


def _of_means(c: Conversion, x: Node) -> Node:
    mean = c.emit(mean_of(c, x))
    count = math.prod(x.shape[d] for d in mean.dims)
    return c.make(Op.UNARY, mean, act=Activation(Act.LINEAR, float(count)))


@converts(aten.im2col.default)
def _im2col(c: Conversion) -> Node | None:
    """The elements of all windows: one slice per kernel position."""
    x = c.node()
    kernel, stride = pair(c['kernel_size']), pair(c['stride'])
    dilation, (top, left) = pair(c['dilation']), pair(c['padding'])
    if len(x.shape) != 4 or math.prod(kernel) > MAX_WINDOW:
        return None
    images, channels, height, width = x.shape
    if top or left:
        pads = ((0, 0), (0, 0), (top, top), (left, left))
        shape = (images, channels, height + 2 * top, width + 2 * left)
        x = c.emit(c.make(Op.PAD, x, shape=shape, pads=pads))
    counts = [
        (size - d * (k - 1) - 1) // s + 1
        for size, k, s, d in zip(x.shape[2:], kernel, stride, dilation)
    ]
    parts = []
    for row in range(kernel[0]):
        rows = _strided_slice(c, x, 2, row * dilation[0], counts[0], stride[0])
        for column in range(kernel[1]):
            part = _strided_slice(
                c, rows, 3, column * dilation[1], counts[1], stride[1]
            )
            shape = (images, channels, 1, math.prod(counts))
            parts.append(c.emit(c.make(Op.RESHAPE, part, shape=shape)))
    shape = (images, channels, len(parts), math.prod(counts))
    joined = c.emit(c.make(Op.CONCAT, *parts, shape=shape, dim=2))
    return c.make(Op.RESHAPE, joined)


def _strided_slice(
    c: Conversion, x: Node, dim: int, start: int, count: int, step: int
) -> Node:
    return part_of(c, x, dim, start, start + (count - 1) * step + 1, step)


ALL_CONVERTERS = CONVERTERS  # registered in from_aten.py and above
