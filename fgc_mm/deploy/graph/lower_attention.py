"""Lowering of attention."""

from __future__ import annotations

import math

from fgc_mm.deploy.graph.ir import Node, Op
from fgc_mm.deploy.graph.layout_tracker import (
    CHANNEL,
    COLUMN,
    LayoutTracker,
    NotSupported,
)
from fgc_mm.deploy.graph.value_layout import (
    Box,
    Dim,
    ValueLayout,
    along,
    dim_of,
)
from fgc_mm.runtime import format as f


def attention(low: LayoutTracker, node: Node) -> ValueLayout:
    q, k, v = (_heads(low, x) for x in node.inputs[:3])
    heads, rows = q[1:]
    for other in (k, v):
        if other[1:] != (heads, rows):
            raise NotSupported('attention with different numbers of heads')
    length, depth = node.shape[-2:]
    y = low.out.storage(heads * depth, rows, length)
    bias = f.NONE
    if len(node.inputs) > 3:
        bias = _scores(low, node, heads, rows)
    low.out.add(
        f.Attention(q[0], k[0], v[0], bias, y, heads, float(node.scale))
    )
    return ValueLayout(y, (0, 0, 0), _dims(node.shape))


def _dims(shape: tuple[int, ...]) -> tuple[Dim, ...]:
    """Dimensions (..., L, d) in a value (heads d, B, L)."""
    *lead, length, depth = shape
    strides = [depth, 1]  # of heads, which are channels, and of rows
    dims = [dim_of(length, COLUMN), dim_of(depth, CHANNEL)]
    for size, kind in reversed(list(zip(lead, _kinds(shape)))):
        axis = ('head', 'row').index(kind)
        dims.insert(0, dim_of(size, along(axis, strides[axis])))
        strides[axis] *= size
    return tuple(dims)


def _kinds(shape: tuple[int, ...]) -> list[str]:
    """Kinds of the leading dimensions of (..., heads, L, d)."""
    lead = len(shape) - 2
    return ['row'] * (lead - 1) + ['head'] if lead > 1 else ['head'] * lead


def _heads(low: LayoutTracker, node: Node) -> Box:
    """A value (heads d, B, L), and the numbers of heads and of rows."""
    shape = node.shape
    kinds = _kinds(shape)
    depth, length = shape[-1], shape[-2]
    heads = math.prod(s for s, k in zip(shape, kinds) if k == 'head')
    rows = math.prod(s for s, k in zip(shape, kinds) if k == 'row')
    box = (heads * depth, rows, length)
    return low.with_layout(node, _dims(shape), box), heads, rows


def _scores(low: LayoutTracker, node: Node, heads: int, rows: int) -> int:
    """A constant added to the scores, as a value (heads, B, L M)."""
    bias = node.inputs[3]
    if bias.op is not Op.CONSTANT:
        raise NotSupported('attention with a bias computed from the image')
    length = node.shape[-2]
    keys = node.inputs[1].shape[-2]
    numbers = bias.tensor.float()
    shape = (*node.shape[:-2], length, keys)
    wide = (1,) * (len(shape) - numbers.dim()) + tuple(numbers.shape)
    numbers = numbers.reshape(wide)
    lead = wide[:-2]
    kinds = _kinds(node.shape)
    many_rows = any(s > 1 for s, k in zip(lead, kinds) if k == 'row')
    many_heads = any(s > 1 for s, k in zip(lead, kinds) if k == 'head')
    target = [
        s if (many_rows if k == 'row' else many_heads) else 1
        for s, k in zip(shape, kinds)
    ]
    numbers = numbers.expand(*target, length, keys)
    numbers = numbers.reshape(
        rows if many_rows else 1,
        heads if many_heads else 1,
        length * keys,
    )
    return low.out.constant(numbers.transpose(0, 1).contiguous())
