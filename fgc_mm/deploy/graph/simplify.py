"""Simplification: folding norms, and replacing patterns by operations."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fgc_mm.deploy.graph.editing import Editor
from fgc_mm.deploy.graph.ir import Graph, Node, Op
from fgc_mm.runtime.format import Act, Activation, Math


def simplify(graph: Graph) -> None:
    """Apply the rewrite rules in place until none matches."""
    graph.prune()
    editor = Editor(graph)
    waiting = deque(graph.nodes)
    while waiting:
        node = waiting.popleft()
        for rule in RULES.get(node.op, ()):
            if not editor.is_in_graph(node):
                break
            new = rule(node, editor)
            if new is not None and new is not node:
                editor.replace(node, new)
                waiting.extend([new, *editor.users(new)])
                break
    editor.close()


def _mean_of_rows(node: Node, _: Editor) -> Node | None:
    """A mean over a flattened map is a mean over rows and columns."""
    (flat,) = node.inputs
    if node.dims != (2,) or flat.op is not Op.RESHAPE:
        return None
    (x,) = flat.inputs
    if len(x.shape) != 4 or node.keep:
        return None
    if flat.shape != (1, x.shape[1], math.prod(x.shape[2:])):
        return None
    return node.instead(Op.MEAN, x, dims=(2, 3), keep=False)


def _reshape_of_reshape(node: Node, _: Editor) -> Node | None:
    (x,) = node.inputs
    if x.shape == node.shape:
        return x
    if x.op is Op.RESHAPE:
        return node.instead(Op.RESHAPE, x.inputs[0])
    return None


def _permute_of_permute(node: Node, _: Editor) -> Node | None:
    (x,) = node.inputs
    if node.dims == tuple(range(len(node.dims))):
        return x
    if x.op is Op.PERMUTE:
        dims = tuple(x.dims[d] for d in node.dims)
        return node.instead(Op.PERMUTE, x.inputs[0], dims=dims)
    return None


def _reshaped_linear(node: Node, editor: Editor) -> Node | None:
    """A linear layer with positions merged before and split after it."""
    (linear,) = node.inputs
    if linear.op is not Op.LINEAR:
        return None
    merged = linear.inputs[0]
    if merged.op is not Op.RESHAPE or not editor.read_once(linear):
        return None
    x = merged.inputs[0]
    wanted = (*x.shape[:-1], linear.shape[-1])
    if x.shape[-1] != merged.shape[-1] or node.shape != wanted:
        return None
    return Node(Op.LINEAR, [x], node.shape, dict(linear.attrs), linear.name)


def _scale_of_channels(node: Node, _: Editor) -> Node | None:
    """A product or sum with one constant per channel is affine."""
    if node.math not in (Math.MUL, Math.ADD):
        return None
    x, c = sorted(node.inputs, key=lambda x: x.op is Op.CONSTANT)
    if x.op is Op.CONSTANT or c.op is not Op.CONSTANT:
        return None
    if x.shape != node.shape or len(node.shape) < 2:
        return None
    shape = (1,) * (len(node.shape) - len(c.shape)) + tuple(c.shape)
    wide = [d for d, size in enumerate(shape) if size > 1]
    if len(wide) > 1:
        return None
    dim = wide[0] if wide else 1
    numbers = c.tensor.float().flatten().expand(node.shape[dim])
    attrs = dict(scale=None, shift=None, slope=None, dim=dim)
    attrs['scale' if node.math == Math.MUL else 'shift'] = numbers
    return node.instead(Op.AFFINE, x, **attrs)


def _linear_of_linear(node: Node, editor: Editor) -> Node | None:
    """Merge ``a x + b`` into another one, or into the layer before it."""
    if node.act.kind is not Act.LINEAR:
        return None
    (x,) = node.inputs
    a, b = node.act.a, node.act.b
    if (a, b) == (1.0, 0.0):
        return x
    if x.op is Op.UNARY and x.act.kind is Act.LINEAR:
        new = node.instead(Op.UNARY, x.inputs[0])
        new.act = Activation(Act.LINEAR, a * x.act.a, a * x.act.b + b)
        return new
    if x.op in (Op.CONV, Op.LINEAR) and editor.read_once(x):
        scale, shift = (torch.full((len(x.weight),), y) for y in (a, b))
        return _scaled(x, scale, shift, node)
    return None


def _fold(node: Node, editor: Editor) -> Node | None:
    """Fold an affine operation into the conv or linear layer before it."""
    if node.slope is not None:
        return None
    (x,) = node.inputs
    both = x.op is Op.AFFINE and x.slope is None and x.dim == node.dim
    if both and editor.read_once(x):
        scale = _joined(torch.mul, x.scale, node.scale)
        shift = x.shift
        if shift is not None:
            shift = _joined(torch.mul, shift, node.scale)
        shift = _joined(torch.add, shift, node.shift)
        attrs = dict(node.attrs, scale=scale, shift=shift)
        return node.instead(Op.AFFINE, x.inputs[0], **attrs)
    dim = 1 if x.op is Op.CONV else len(x.shape) - 1
    if x.op not in (Op.CONV, Op.LINEAR) or node.dim != dim:
        return None
    if not editor.read_once(x):
        return None
    return _scaled(x, node.scale, node.shift, node)


def _joined(
    join: Callable[[Tensor, Tensor], Tensor],
    x: Tensor | None,
    y: Tensor | None,
) -> Tensor | None:
    """A sum or product of two tensors, either of which may be missing."""
    if x is None or y is None:
        return y if x is None else x
    return join(x, y)


def _scaled(
    layer: Node, scale: Tensor | None, shift: Tensor | None, node: Node
) -> Node:
    """A conv or linear layer with scaled and shifted outputs."""
    weight, bias = layer.weight.double(), layer.bias
    bias = None if bias is None else bias.double()
    if scale is not None:
        scale = scale.double()
        weight = weight * scale.reshape(-1, *[1] * (weight.dim() - 1))
        bias = None if bias is None else bias * scale
    if shift is not None:
        bias = shift.double() if bias is None else bias + shift
    attrs = dict(
        layer.attrs,
        weight=weight.float(),
        bias=None if bias is None else bias.float(),
    )
    return Node(layer.op, list(layer.inputs), node.shape, attrs, layer.name)


def _attention(node: Node, editor: Editor) -> Node | None:
    """softmax(scale q k^T + bias) v, written as separate operations."""
    softmax, value = node.inputs
    if softmax.op is not Op.SOFTMAX or softmax.dim != len(softmax.shape) - 1:
        return None
    found = _product_of(softmax.inputs[0])
    if found is None:
        return None
    (q, k), scale, bias = found
    rank = len(k.shape)
    dims = (*range(rank - 2), rank - 1, rank - 2)
    shape = tuple(k.shape[d] for d in dims)
    inputs = [q, Node(Op.PERMUTE, [k], shape, {'dims': dims}, k.name), value]
    if bias is not None:
        attrs = {'tensor': bias}
        inputs.append(Node(Op.CONSTANT, [], tuple(bias.shape), attrs))
    for new in (inputs[1], *inputs[3:]):
        editor.insert(new, node)
    return node.instead(Op.ATTENTION, *inputs, scale=scale)


def _reshaped_matmul(node: Node, editor: Editor) -> Node | None:
    """A matrix product with leading dimensions merged and split."""
    (product,) = node.inputs
    if product.op is not Op.MATMUL or not editor.read_once(product):
        return None
    if node.shape[-2:] != product.shape[-2:]:
        return None
    inputs = []
    for merged in product.inputs:
        x = merged.inputs[0] if merged.op is Op.RESHAPE else merged
        same = x.shape[-2:] == merged.shape[-2:]
        if not same or x.shape[:-2] != node.shape[:-2]:
            return None
        inputs.append(x)
    return Node(Op.MATMUL, inputs, node.shape, {}, product.name)


def _product_of(
    scores: Node,
) -> tuple[list[Node], float, Tensor | None] | None:
    """Scores as a scaled matrix product plus constants of its shape."""
    shape = scores.shape
    scale, bias = 1.0, None
    while scores.op is not Op.MATMUL:
        added = _added_constant(scores)
        if added is not None:
            scores, constant = added
            constant = scale * constant.reshape(shape)
            bias = _joined(torch.add, bias, constant)
        elif scores.op is Op.RESHAPE:
            (scores,) = scores.inputs
        elif _is_factor(scores):
            scale *= scores.act.a
            (scores,) = scores.inputs
        else:
            return None
    return (scores.inputs, scale, bias) if scores.shape == shape else None


def _added_constant(node: Node) -> tuple[Node, Tensor] | None:
    """The other summand, and the constant in the sum's shape."""
    if node.op is Op.AFFINE and node.scale is None and node.slope is None:
        shape = [1] * len(node.shape)
        shape[node.dim] = -1
        return node.inputs[0], node.shift.reshape(shape).expand(node.shape)
    constants = [x for x in node.inputs if x.op is Op.CONSTANT]
    if node.op is not Op.BINARY or node.math != Math.ADD or not constants:
        return None
    (other,) = (x for x in node.inputs if x is not constants[0])
    return other, constants[0].tensor.float().expand(node.shape)


def _is_factor(node: Node) -> bool:
    act = node.act
    return node.op is Op.UNARY and act.kind is Act.LINEAR and act.b == 0


def _channel_shuffle(node: Node, _: Editor) -> Node | None:
    """Reshapes and permutations that only reorder channels."""
    chain = [node]
    while chain[-1].op in (Op.RESHAPE, Op.PERMUTE):
        chain.append(chain[-1].inputs[0])
    x = next((y for y in reversed(chain[2:]) if y.shape == node.shape), None)
    if x is None or len(x.shape) != 4 or x.op in (Op.RESHAPE, Op.PERMUTE):
        return None
    numbers = torch.arange(math.prod(x.shape), dtype=torch.int32)
    where = whole = numbers.reshape(x.shape)
    for move in reversed(chain[: chain.index(x)]):
        if move.op is Op.RESHAPE:
            where = where.reshape(move.shape)
        else:
            where = where.permute(move.dims)
    index = where[0, :, 0, 0].long() // math.prod(x.shape[2:])
    if not torch.equal(where, whole.index_select(1, index)):
        return None
    return node.instead(Op.TAKE, x, dim=1, index=index)


def _topk_mask(node: Node, _: Editor) -> Node | None:
    """Ones at the first indices of a descending order: the k largest."""
    if len(node.inputs) != 1:
        return None
    k = _count_of(node.function)
    order = node.inputs[0]
    if k is None or len(order.shape) != 2:
        return None
    first = order.op is Op.SLICE and order.dim == 1
    if first and order.start == 0 and order.step == 1:
        k, order = min(k, order.stop), order.inputs[0]
    if not _is_descending_order(order):
        return None
    return node.instead(Op.TOPK, order.inputs[0], k=k, ones=True)


def _is_descending_order(node: Node) -> bool:
    """Whether it gives the indices of a descending sort of each row."""
    if node.op is not Op.CALL or node.function.function not in SORTS:
        return False
    named = node.function.named
    index = 1 if node.function.function is aten.sort.stable else 0
    return bool(
        named['descending']
        and named['stable']
        and named['dim'] in (1, -1)
        and node.output == index
    )


def _count_of(scatter: Any) -> int | None:
    """How many of an order's first indices are set to 1 among zeros."""
    if scatter.function not in SCATTERS:
        return None
    zeros, dim, _, source = scatter.fixed
    if zeros is None or zeros.any() or dim != 1 or source is None:
        return None
    if not isinstance(source, Tensor):
        return zeros.shape[1] if source == 1 else None
    ones = source[0] == 1
    count = int(ones.sum())
    prefix = bool(ones[:count].all()) and not source[0, count:].any()
    return count if prefix else None


aten = torch.ops.aten
SORTS = (aten.sort.stable, aten.argsort.stable)
SCATTERS = (aten.scatter.value, aten.scatter.src)
RULES: dict[Op, tuple[Callable[[Node, Editor], Node | None], ...]] = {
    Op.RESHAPE: (
        _reshape_of_reshape,
        _reshaped_linear,
        _reshaped_matmul,
        _channel_shuffle,
    ),
    Op.PERMUTE: (_permute_of_permute, _channel_shuffle),
    Op.MEAN: (_mean_of_rows,),
    Op.BINARY: (_scale_of_channels,),
    Op.UNARY: (_linear_of_linear,),
    Op.AFFINE: (_fold,),
    Op.MATMUL: (_attention,),
    Op.CALL: (_topk_mask,),
}
