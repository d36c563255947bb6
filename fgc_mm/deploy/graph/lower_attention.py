"""Lowering of attention."""

from __future__ import annotations

import math

from fgc_mm.deploy.graph.emit import NotSupported
from fgc_mm.deploy.graph.ir import Node, Op
from fgc_mm.deploy.graph.layout_tracker import LayoutTracker
from fgc_mm.deploy.graph.value_layout import Box, ValueLayout
from fgc_mm.runtime import format as f


def attention(low: LayoutTracker, node: Node) -> ValueLayout:
    q, k, v = (_heads(low, x) for x in node.inputs[:3])
    heads, rows = q[1:]
    for other in (k, v):
        if other[1:] != (heads, rows):
            raise NotSupported('attention with different numbers of heads')
    y = low.new(node.shape, _axes(node))
    bias = f.NONE
    if len(node.inputs) > 3:
        bias = _scores(low, node, heads, rows)
    low.out.add(
        f.Attention(q[0], k[0], v[0], bias, y.value, heads, float(node.scale))
    )
    return y


def _axes(node: Node) -> list[int]:
    """Axes of (rows, ..., heads, L, d) in a value (heads d, rows, L)."""
    rank = len(node.shape)
    return [*[1] * rank, 0, 2, 0][-rank:]


def _heads(low: LayoutTracker, node: Node) -> Box:
    """A value (heads d, rows, L), and the numbers of heads and of rows."""
    *rows, heads, _, _ = (1, *node.shape)
    return low.along_axes(node, _axes(node)), heads, math.prod(rows)


def _scores(low: LayoutTracker, node: Node, heads: int, rows: int) -> int:
    """A constant added to the scores, as a value (heads, rows, L M)."""
    bias = node.inputs[3]
    if bias.op is not Op.CONSTANT:
        raise NotSupported('attention with a bias computed from the image')
    shape = (1, *node.shape[:-1], node.inputs[1].shape[-2])
    numbers = bias.tensor.float()
    numbers = numbers.reshape((1,) * (len(shape) - numbers.dim()) + bias.shape)
    *lead, own_heads, _, _ = numbers.shape
    if math.prod(lead) == 1:
        rows = 1
    else:
        lead = list(shape[:-3])
    if own_heads == 1:
        heads = 1
    numbers = numbers.expand(*lead, heads, *shape[-2:]).reshape(
        rows, heads, -1
    )
    return low.out.constant(numbers.transpose(0, 1).contiguous())
