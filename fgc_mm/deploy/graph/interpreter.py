"""Interpreter of graphs in plain torch: the semantics of every operation.

Masks are no operation here: channel lists have replaced them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fgc_mm.deploy.graph.ir import ALL, Graph, Node, Op
from fgc_mm.runtime.format import Act, Activation, Math

Values = dict[Node, Tensor]
aten = torch.ops.aten


@torch.no_grad()
def interpret(
    graph: Graph,
    image: Tensor,
    masks: Sequence[Tensor] = (),
    poison: bool = True,
    records: bool = True,
) -> Values:
    """Compute the value of every node for one image.

    Args:
        graph: The network.
        image: (1, 3, H, W) of the size that the graph is for.
        masks: (1, C) for every site, instead of its gate's mask.
        poison: Whether channels that a node does not compute are nan, so
            that the result is nan if one is read.
        records: Whether to compute nodes that only the records need.

    Returns:
        The value of each node.
    """
    values = {graph.nodes[0]: image}
    values |= {site.decision: mask for site, mask in zip(graph.sites, masks)}
    for node in graph.nodes:
        if node not in values and (records or not node.records_only):
            values[node] = run_node(node, values, poison)
    return values


def run_node(node: Node, values: Values, poison: bool = True) -> Tensor:
    """Compute the value of one node, except the image's.

    ``values`` are those of the nodes that it reads, and of the decisions.
    """
    inputs = [values[x] for x in node.inputs]
    if node.op in (Op.CONV, Op.LINEAR):
        result = _product_with_lists(node, inputs, values)
    elif node.op is Op.CLEAR and node.reads is not ALL:
        listed = node.reads.numbers(values)
        result = _listed(inputs[0], node.channel_dim, listed, 0.0)
    else:
        result = RUN[node.op](node, *inputs)
    if node.op not in (Op.CALL, Op.UNARY):
        result = activate(result, node.act)
    return _poisoned(node, result, values) if poison else result


def activate(x: Tensor, act: Activation) -> Tensor:
    """Apply an activation of :class:`fgc_mm.runtime.format.Act`."""
    return ACTS[act.kind](x, act.a, act.b)


ACTS: dict[Act, Callable[[Tensor, float, float], Tensor]] = {
    Act.NONE: lambda x, a, b: x,
    Act.RELU: lambda x, a, b: x.relu(),
    Act.CLAMP: lambda x, a, b: x.clamp(a, b),
    Act.LEAKY_RELU: lambda x, a, b: F.leaky_relu(x, a),
    Act.HARDSWISH: lambda x, a, b: F.hardswish(x),
    Act.HARDSIGMOID: lambda x, a, b: F.hardsigmoid(x),
    Act.SILU: lambda x, a, b: x * (a * x).sigmoid(),
    Act.GELU: lambda x, a, b: F.gelu(x),
    Act.GELU_TANH: lambda x, a, b: F.gelu(x, approximate='tanh'),
    Act.SIGMOID: lambda x, a, b: x.sigmoid(),
    Act.TANH: lambda x, a, b: x.tanh(),
    Act.ELU: lambda x, a, b: F.elu(x, a),
    Act.MISH: lambda x, a, b: F.mish(x),
    Act.LINEAR: lambda x, a, b: a * x + b,
    Act.GREATER: lambda x, a, b: (x > a).to(x),
    Act.ABS: lambda x, a, b: x.abs(),
    Act.SQUARE: lambda x, a, b: x * x,
    Act.SQRT: lambda x, a, b: x.sqrt(),
    Act.EXP: lambda x, a, b: x.exp(),
    Act.LOG: lambda x, a, b: x.log(),
    Act.RECIPROCAL: lambda x, a, b: x.reciprocal(),
}
BINARY: dict[Math, Callable[[Tensor, Tensor], Tensor]] = {
    Math.ADD: torch.add,
    Math.SUB: torch.sub,
    Math.MUL: torch.mul,
    Math.DIV: torch.div,
    Math.MAX: torch.maximum,
    Math.MIN: torch.minimum,
}


def _product_with_lists(
    node: Node, inputs: list[Tensor], values: Values
) -> Tensor:
    """A conv or linear layer that reads and computes listed channels."""
    x, *added = inputs
    weight, bias = node.weight, node.bias
    dim = 1 if node.op is Op.CONV else x.dim() - 1
    groups = node.attrs.get('groups', 1)
    reads = None if node.reads is ALL else node.reads.numbers(values)
    writes = None if node.writes is ALL else node.writes.numbers(values)
    if groups > 1 and writes is not None:  # depthwise
        x = x.index_select(dim, writes // (weight.shape[0] // x.shape[dim]))
        groups = len(writes)
    if reads is not None:
        x = x.index_select(dim, reads)
        weight = weight.index_select(1, reads)
    if writes is not None:
        weight = weight.index_select(0, writes)
        bias = None if bias is None else bias.index_select(0, writes)
    y = _product(node, x, weight, bias, groups)
    if writes is not None:
        whole = y.new_full(node.shape, math.nan)
        y = whole.index_copy_(dim, writes, y)
    for more in added:
        y = y + more
    return y


def _product(
    node: Node, x: Tensor, weight: Tensor, bias: Tensor | None, groups: int
) -> Tensor:
    if node.op is Op.LINEAR:
        return F.linear(x, weight, bias)
    if len(weight) == 0:
        return x.new_zeros(1, 0, *node.shape[2:])
    if x.shape[1] == 0:
        y = x.new_zeros(1, len(weight), *node.shape[2:])
        return y if bias is None else y + bias[:, None, None]
    sides = (node.stride, node.padding, node.dilation)
    return F.conv2d(x, weight, bias, *sides, groups)


def _poisoned(node: Node, result: Tensor, values: Values) -> Tensor:
    if node.writes is ALL:
        return result
    listed = node.writes.numbers(values)
    return _listed(result, node.channel_dim, listed, math.nan)


def _affine(node: Node, x: Tensor) -> Tensor:
    shape = [-1 if d == node.dim else 1 for d in range(x.dim())]
    scale, shift, slope = (
        None if values is None else values.reshape(shape)
        for values in (node.scale, node.shift, node.slope)
    )
    x = x if scale is None else x * scale
    x = x if shift is None else x + shift
    return x if slope is None else torch.where(x > 0, x, slope * x)


def _listed(x: Tensor, dim: int, numbers: Tensor, other: float) -> Tensor:
    """The listed channels of a tensor, and another number elsewhere."""
    part = x.index_select(dim, numbers)
    return torch.full_like(x, other).index_copy_(dim, numbers, part)


def _pool(node: Node, x: Tensor) -> Tensor:
    ceil = _ceil(node, x)
    if node.average:
        return F.avg_pool2d(
            x, node.kernel, node.stride, node.padding, ceil, node.outside
        )
    return F.max_pool2d(
        x, node.kernel, node.stride, node.padding, node.dilation, ceil
    )


def _ceil(node: Node, x: Tensor) -> bool:
    """Whether the output shape was rounded up."""
    for axis in (0, 1):
        reach = node.dilation[axis] * (node.kernel[axis] - 1) + 1
        size = x.shape[2 + axis] + 2 * node.padding[axis] - reach
        if size // node.stride[axis] + 1 < node.shape[2 + axis]:
            return True
    return False


def _pad(node: Node, x: Tensor) -> Tensor:
    return F.pad(x, [n for pair in reversed(node.pads) for n in pair])


def _resize(node: Node, x: Tensor) -> Tensor:
    size = node.shape[2:]
    scales = [1 / s if s else None for s in node.scale]
    if node.bilinear:
        return aten.upsample_bilinear2d(x, size, node.corners, *scales)
    return aten.upsample_nearest2d(x, size, *scales)


def _attention(
    node: Node, q: Tensor, k: Tensor, v: Tensor, *bias: Tensor
) -> Tensor:
    scores = q @ k.transpose(-1, -2) * node.scale
    for more in bias:
        scores = scores + more
    return scores.softmax(-1) @ v


def _topk(node: Node, x: Tensor) -> Tensor:
    order = x.argsort(dim=1, descending=True, stable=True)[:, : node.k]
    mask = torch.zeros_like(x).scatter(1, order, 1.0)
    return mask if node.ones else mask * x


def _norm(node: Node, x: Tensor) -> Tensor:
    numbers = node.weight, node.bias, node.eps
    if node.groups:
        return F.group_norm(x, node.groups, *numbers)
    return F.layer_norm(x, x.shape[-1:], *numbers)


RUN: dict[Op, Callable[..., Tensor]] = {
    Op.CONSTANT: lambda n: n.tensor,
    Op.AFFINE: _affine,
    Op.NORM: _norm,
    Op.UNARY: lambda n, x: activate(x, n.act),
    Op.BINARY: lambda n, x, y: BINARY[n.math](x, y),
    Op.POOL: _pool,
    Op.MEAN: lambda n, x: x.mean(n.dims, n.keep),
    Op.CONCAT: lambda n, *xs: torch.cat(xs, n.dim),
    Op.SLICE: lambda n, x: aten.slice(x, n.dim, n.start, n.stop, n.step),
    Op.SELECT: lambda n, x: x.select(n.dim, n.index),
    Op.PAD: _pad,
    Op.PERMUTE: lambda n, x: x.permute(n.dims),
    Op.RESHAPE: lambda n, x: x.reshape(n.shape),
    Op.EXPAND: lambda n, x: x.expand(n.shape),
    Op.TAKE: lambda n, x: x.index_select(n.dim, n.index),
    Op.MATMUL: lambda n, x, y: x @ y,
    Op.SOFTMAX: lambda n, x: x.softmax(n.dim),
    Op.ATTENTION: _attention,
    Op.RESIZE: _resize,
    Op.TOPK: _topk,
    Op.DECISION: lambda n, mask: mask,
    Op.CALL: lambda n, *xs: n.function(*xs)[n.output],
}

# operations that only move elements
MOVES = (
    Op.SLICE,
    Op.SELECT,
    Op.PAD,
    Op.PERMUTE,
    Op.RESHAPE,
    Op.EXPAND,
    Op.TAKE,
)
