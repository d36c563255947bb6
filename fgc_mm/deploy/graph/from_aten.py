"""Conversion of aten operations to graph nodes.

A converter gets the operation's arguments and results, and a function from
tensors to nodes; it returns the nodes of the results, or the one of the
first, or ``None`` if the graph has no such operation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fgc_mm.deploy.graph.ir import Node, Op
from fgc_mm.runtime.format import Act, Activation, Math

aten = torch.ops.aten
Emit = Callable[[Node], Node]
Find = Callable[[Tensor], Node]
Converter = Callable[['Conversion'], 'Node | list[Node] | None']
CONVERTERS: dict[Any, Converter] = {}


class Conversion:
    """One operation to convert.

    Args:
        node_of: Returns the node of a tensor, also of a constant.
        emit: Adds a node before the returned one.
        args: Arguments by name.
        result: What torch computed.
    """

    def __init__(
        self, node_of: Find, emit: Emit, args: dict[str, Any], result: Any
    ) -> None:
        self.node_of, self.emit = node_of, emit
        self.args, self.result = args, result

    def __getitem__(self, name: str) -> Any:
        return self.args.get(name)

    def node(self, name: str = 'self') -> Node:
        return self.node_of(self.args[name])

    def constant(self, name: str) -> Tensor:
        """A weight; LookupError if it is computed from the image."""
        node = self.node(name)
        if node.op is not Op.CONSTANT:
            raise LookupError
        return node.tensor

    def optional(self, name: str) -> Tensor | None:
        """A weight, or ``None`` if it is not given."""
        return None if self[name] is None else self.constant(name)

    def make(
        self,
        op: Op,
        *inputs: Node,
        shape: tuple[int, ...] | None = None,
        **attrs: Any,
    ) -> Node:
        if shape is None:
            first = self.result
            if isinstance(first, (tuple, list)):
                first = first[0]
            shape = tuple(first.shape)
        act = attrs.pop('act', Activation())
        return Node(op, list(inputs), shape, attrs, act=act)


def converts(*functions: Any) -> Callable[[Converter], Converter]:
    """Register a converter for some of torch's operations."""

    def register(converter: Converter) -> Converter:
        CONVERTERS.update(dict.fromkeys(functions, converter))
        return converter

    return register


@converts(aten.convolution.default)
def _conv(c: Conversion) -> Node | None:
    weight, bias = c.constant('weight'), c.optional('bias')
    flat = weight.dim() == 4 and not c['transposed']
    if not flat or c['input'].dim() != 4:
        return None
    pads = [(p, p) for p in pair(c['padding'])]
    return c.make(
        Op.CONV,
        c.node('input'),
        weight=weight,
        bias=bias,
        stride=pair(c['stride']),
        padding=tuple(pads),
        dilation=pair(c['dilation']),
        groups=c['groups'],
    )


def pair(values: Any) -> tuple[int, int]:
    """(rows, columns), from two numbers or one for both."""
    values = tuple(values)
    return values * 2 if len(values) == 1 else values


@converts(aten.addmm.default, aten.mm.default)
def _linear(c: Conversion) -> Node | None:
    x = 'mat1' if 'mat1' in c.args else 'self'
    if c['alpha'] not in (None, 1) or c['beta'] not in (None, 1):
        return None
    bias = c.constant('self') if x == 'mat1' else None
    if bias is not None and bias.dim() != 1:
        return None
    weight = c.constant('mat2')
    return c.make(Op.LINEAR, c.node(x), weight=weight.t(), bias=bias)


@converts(aten.bmm.default, aten.matmul.default)
def _matmul(c: Conversion) -> Node:
    second = 'mat2' if 'mat2' in c.args else 'other'
    return c.make(Op.MATMUL, c.node(), c.node(second))


@converts(
    aten.native_batch_norm.default,
    aten._native_batch_norm_legit_no_training.default,
    aten.cudnn_batch_norm.default,
)
def _batch_norm(c: Conversion) -> Node | None:
    if c['training']:
        return None
    mean, var = c.constant('running_mean'), c.constant('running_var')
    scale = (var + c['eps']).rsqrt()
    weight, bias = c.optional('weight'), c.optional('bias')
    scale = scale if weight is None else scale * weight
    shift = -mean * scale
    shift = shift if bias is None else shift + bias
    return c.make(
        Op.AFFINE,
        c.node('input'),
        scale=scale,
        shift=shift,
        slope=None,
        dim=1,
    )


@converts(aten.native_layer_norm.default)
def _layer_norm(c: Conversion) -> Node | None:
    if len(c['normalized_shape']) != 1:
        return None
    return c.make(
        Op.LAYER_NORM,
        c.node('input'),
        weight=c.optional('weight'),
        bias=c.optional('bias'),
        eps=c['eps'],
    )


@converts(aten.native_group_norm.default)
def _group_norm(c: Conversion) -> Node:
    return c.make(
        Op.GROUP_NORM,
        c.node('input'),
        weight=c.optional('weight'),
        bias=c.optional('bias'),
        eps=c['eps'],
        groups=c['group'],
    )


def _unary(kind: Act, **names: Any) -> Converter:
    def convert(c: Conversion) -> Node:
        values = {
            name: c[argument] if isinstance(argument, str) else argument
            for name, argument in names.items()
        }
        return c.make(
            Op.UNARY,
            c.node(),
            act=Activation(kind, **{k: float(v) for k, v in values.items()}),
        )

    return convert


SIMPLE = {
    aten.relu.default: Act.RELU,
    aten.hardswish.default: Act.HARDSWISH,
    aten.hardsigmoid.default: Act.HARDSIGMOID,
    aten.sigmoid.default: Act.SIGMOID,
    aten.tanh.default: Act.TANH,
    aten.mish.default: Act.MISH,
    aten.abs.default: Act.ABS,
    aten.sqrt.default: Act.SQRT,
    aten.exp.default: Act.EXP,
    aten.log.default: Act.LOG,
    aten.reciprocal.default: Act.RECIPROCAL,
}
for function, kind in SIMPLE.items():
    converts(function)(_unary(kind))
converts(aten.silu.default)(_unary(Act.SILU, a=1.0))
converts(aten.gt.Scalar)(_unary(Act.GREATER, a='other'))
converts(aten.neg.default)(_unary(Act.LINEAR, a=-1.0))
converts(aten.leaky_relu.default)(_unary(Act.LEAKY_RELU, a='negative_slope'))
converts(aten.hardtanh.default)(_unary(Act.CLAMP, a='min_val', b='max_val'))


@converts(aten.clamp.default, aten.clamp_min.default, aten.clamp_max.default)
def _clamp(c: Conversion) -> Node:
    low, high = c['min'], c['max']
    return c.make(
        Op.UNARY,
        c.node(),
        act=Activation(
            Act.CLAMP,
            -math.inf if low is None else float(low),
            math.inf if high is None else float(high),
        ),
    )


@converts(aten.gelu.default)
def _gelu(c: Conversion) -> Node:
    kind = Act.GELU_TANH if c['approximate'] == 'tanh' else Act.GELU
    return c.make(Op.UNARY, c.node(), act=Activation(kind))


@converts(aten.elu.default)
def _elu(c: Conversion) -> Node | None:
    if c['scale'] not in (None, 1) or c['input_scale'] not in (None, 1):
        return None
    alpha = 1.0 if c['alpha'] is None else float(c['alpha'])
    return c.make(Op.UNARY, c.node(), act=Activation(Act.ELU, alpha))


@converts(aten.pow.Tensor_Scalar)
def _power(c: Conversion) -> Node | None:
    kind = {2: Act.SQUARE, 0.5: Act.SQRT, -1: Act.RECIPROCAL}.get(
        c['exponent']
    )
    if kind is None:
        return None
    return c.make(Op.UNARY, c.node(), act=Activation(kind))


@converts(aten._prelu_kernel.default)
def _prelu(c: Conversion) -> Node | None:
    slope = c.constant('weight')
    channels = c['self'].shape[1]
    if slope.dim() != c['self'].dim() or slope.numel() not in (1, channels):
        return None
    slope = slope.flatten().expand(channels)
    return c.make(
        Op.AFFINE, c.node(), scale=None, shift=None, slope=slope, dim=1
    )


def _binary(math_: Math) -> Converter:
    def convert(c: Conversion) -> Node | None:
        alpha = 1 if c['alpha'] is None else c['alpha']
        other = c['other']
        if isinstance(other, Tensor) and other.dim() == 0:
            other = float(c.constant('other'))
        if isinstance(other, Tensor):
            if alpha != 1 or c.result.dtype != torch.float32:
                return None
            return c.make(Op.BINARY, c.node(), c.node('other'), math=math_)
        return c.make(
            Op.UNARY,
            c.node(),
            act=Activation(Act.LINEAR, *_linear_of(math_, alpha * other)),
        )

    return convert


def _linear_of(math_: Math, number: float) -> tuple[float, float]:
    return {
        Math.ADD: (1.0, number),
        Math.SUB: (1.0, -number),
        Math.MUL: (number, 0.0),
        Math.DIV: (1.0 / number if number else math.inf, 0.0),
    }[math_]


converts(aten.add.Tensor, aten.add.Scalar)(_binary(Math.ADD))
converts(aten.sub.Tensor, aten.sub.Scalar)(_binary(Math.SUB))
converts(aten.mul.Tensor, aten.mul.Scalar)(_binary(Math.MUL))
converts(aten.div.Tensor, aten.div.Scalar)(_binary(Math.DIV))


@converts(aten.bitwise_and.Tensor, aten.logical_and.default)
def _logical_and(c: Conversion) -> Node | None:
    """Logical and; booleans are 0 and 1."""
    if c.result.dtype != torch.bool:
        return None
    return c.make(Op.BINARY, c.node(), c.node('other'), math=Math.MUL)


converts(aten.maximum.default)(_binary(Math.MAX))
converts(aten.minimum.default)(_binary(Math.MIN))


@converts(aten.max_pool2d_with_indices.default, aten.max_pool2d.default)
def _max_pool(c: Conversion) -> Node | None:
    return _pool(c, average=False, outside=False)


@converts(aten.avg_pool2d.default)
def _avg_pool(c: Conversion) -> Node | None:
    if c['divisor_override']:
        return None
    outside = c['count_include_pad'] is not False
    if outside and c['ceil_mode']:
        return None
    return _pool(c, average=True, outside=outside)


def _pool(c: Conversion, average: bool, outside: bool) -> Node | None:
    if c['self'].dim() != 4:
        return None
    kernel = pair(c['kernel_size'])
    return c.make(
        Op.POOL,
        c.node(),
        average=average,
        kernel=kernel,
        stride=pair(c['stride'] or kernel),
        padding=pair(c['padding'] or (0,)),
        dilation=pair(c['dilation'] or (1,)),
        outside=outside,
    )


@converts(aten._adaptive_avg_pool2d.default, aten.adaptive_avg_pool2d.default)
def _adaptive_pool(c: Conversion) -> Node | None:
    size, out = c['self'].shape[-2:], c['output_size']
    if tuple(out) == (1, 1):
        return c.make(Op.MEAN, c.node(), dims=(2, 3), keep=True)
    if any(n % m for n, m in zip(size, out)) or c['self'].dim() != 4:
        return None
    kernel = tuple(n // m for n, m in zip(size, out))
    return c.make(
        Op.POOL,
        c.node(),
        average=True,
        kernel=kernel,
        stride=kernel,
        padding=(0, 0),
        dilation=(1, 1),
        outside=False,
    )


@converts(aten.mean.dim)
def _mean(c: Conversion) -> Node:
    return mean_of(c, c.node())


def mean_of(c: Conversion, x: Node) -> Node:
    """Mean over the given dimensions or all."""
    rank = c['self'].dim()
    dims = tuple(d % rank for d in c['dim'] or range(rank))
    return c.make(Op.MEAN, x, dims=dims, keep=bool(c['keepdim']))


@converts(aten.cat.default)
def _concat(c: Conversion) -> Node:
    tensors = [x for x in c['tensors'] if x.numel()]
    return c.make(
        Op.CONCAT,
        *map(c.node_of, tensors),
        dim=(c['dim'] or 0) % tensors[0].dim(),
    )


@converts(aten.slice.Tensor)
def _slice(c: Conversion) -> Node:
    dim = (c['dim'] or 0) % c['self'].dim()
    size = c['self'].shape[dim]
    start, stop, step = slice(c['start'], c['end'], c['step']).indices(size)
    return c.make(
        Op.SLICE, c.node(), dim=dim, start=start, stop=stop, step=step
    )


@converts(aten.select.int)
def _select(c: Conversion) -> Node:
    dim = c['dim'] % c['self'].dim()
    index = c['index'] % c['self'].shape[dim]
    return c.make(Op.SELECT, c.node(), dim=dim, index=index)


@converts(aten.constant_pad_nd.default)
def _pad(c: Conversion) -> Node | None:
    if c['value']:
        return None
    pads = list(c['pad'])
    pairs = [(pads[n], pads[n + 1]) for n in range(0, len(pads), 2)][::-1]
    whole = [(0, 0)] * (c['self'].dim() - len(pairs)) + pairs
    if any(n < 0 for pair in whole for n in pair):
        return None
    return c.make(Op.PAD, c.node(), pads=tuple(whole))


@converts(aten.permute.default)
def _permute(c: Conversion) -> Node:
    rank = c['self'].dim()
    return c.make(
        Op.PERMUTE, c.node(), dims=tuple(d % rank for d in c['dims'])
    )


@converts(aten.transpose.int, aten.t.default)
def _transpose(c: Conversion) -> Node:
    rank = c['self'].dim()
    dims = list(range(rank))
    first = 0 if c['dim0'] is None else c['dim0'] % rank
    second = rank - 1 if c['dim1'] is None else c['dim1'] % rank
    dims[first], dims[second] = dims[second], dims[first]
    return c.make(Op.PERMUTE, c.node(), dims=tuple(dims))


@converts(
    aten.view.default,
    aten._unsafe_view.default,
    aten.reshape.default,
    aten.unsqueeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.squeeze.default,
)
def _reshape(c: Conversion) -> Node:
    return c.make(Op.RESHAPE, c.node())


@converts(aten.expand.default)
def _expand(c: Conversion) -> Node:
    return expanded(c, c.node())


def expanded(c: Conversion, x: Node) -> Node:
    """Broadcast a node to the shape of the result."""
    shape = tuple(c.result.shape)
    if len(shape) != len(x.shape):
        front = (1,) * (len(shape) - len(x.shape))
        x = c.emit(c.make(Op.RESHAPE, x, shape=front + x.shape))
    return c.make(Op.EXPAND, x)


@converts(
    aten.clone.default,
    aten.detach.default,
    aten.alias.default,
    aten.contiguous.default,
    aten.lift_fresh.default,
)
def _same(c: Conversion) -> Node:
    return c.node()


@converts(aten._to_copy.default)
def _convert(c: Conversion) -> Node | None:
    """Conversions that keep values; booleans are 0 and 1."""
    before, after = c['self'].dtype, c['dtype'] or c['self'].dtype
    kept = after == torch.float32 and before in (torch.float32, torch.bool)
    return c.node() if kept or after == before == torch.bool else None


@converts(aten.split.Tensor, aten.split_with_sizes.default, aten.unbind.int)
def _split(c: Conversion) -> list[Node] | None:
    x = c.node()
    dim = (c['dim'] or 0) % c['self'].dim()
    if c['split_size'] is None and c['split_sizes'] is None:
        return [
            c.make(Op.SELECT, x, shape=tuple(r.shape), dim=dim, index=n)
            for n, r in enumerate(c.result)
        ]
    nodes, start = [], 0
    for r in c.result:
        stop = start + r.shape[dim]
        nodes.append(
            c.make(
                Op.SLICE,
                x,
                shape=tuple(r.shape),
                dim=dim,
                start=start,
                stop=stop,
                step=1,
            )
        )
        start = stop
    return nodes


@converts(aten.flip.default)
def _flip(c: Conversion) -> Node:
    rank = c['self'].dim()
    return c.make(Op.FLIP, c.node(), dims=tuple(d % rank for d in c['dims']))


@converts(aten.index.Tensor, aten.index_select.default)
def _take(c: Conversion) -> Node | None:
    if c['indices'] is None:
        dim, index = c['dim'], c.constant('index')
    else:
        given = [(d, i) for d, i in enumerate(c['indices']) if i is not None]
        if len(given) != 1 or given[0][1].dim() != 1:
            return None
        ((dim, index),) = given
    if c.node_of(index).op is not Op.CONSTANT or index.dtype != torch.long:
        return None
    index = index % c['self'].shape[dim]
    return c.make(Op.TAKE, c.node(), dim=dim, index=index)


@converts(aten._softmax.default)
def _softmax(c: Conversion) -> Node:
    return c.make(Op.SOFTMAX, c.node(), dim=c['dim'] % c['self'].dim())


@converts(
    aten._scaled_dot_product_flash_attention_for_cpu.default,
    aten.scaled_dot_product_attention.default,
)
def _attention(c: Conversion) -> Node | None:
    mask = c['attn_mask']
    if c['is_causal'] or c['dropout_p']:
        return None
    if mask is not None and not mask.is_floating_point():
        return None
    q = c['query']
    scale = c['scale'] or q.shape[-1] ** -0.5
    more = [] if mask is None else [c.node('attn_mask')]
    return c.make(
        Op.ATTENTION,
        c.node('query'),
        c.node('key'),
        c.node('value'),
        *more,
        scale=scale,
    )


@converts(aten.upsample_nearest2d.vec, aten.upsample_nearest2d.default)
def _nearest(c: Conversion) -> Node:
    return c.make(
        Op.RESIZE,
        c.node_of(_first(c)),
        bilinear=False,
        corners=False,
        scale=_steps(c),
    )


@converts(aten.upsample_bilinear2d.vec, aten.upsample_bilinear2d.default)
def _bilinear(c: Conversion) -> Node:
    return c.make(
        Op.RESIZE,
        c.node_of(_first(c)),
        bilinear=True,
        corners=bool(c['align_corners']),
        scale=_steps(c),
    )


def _first(c: Conversion) -> Tensor:
    return c['input'] if c['self'] is None else c['self']


def _steps(c: Conversion) -> tuple[float, float]:
    given = c['scale_factors'] or (c['scales_h'], c['scales_w'])
    rows, columns = (1 / s if s else 0.0 for s in given)
    return rows, columns
