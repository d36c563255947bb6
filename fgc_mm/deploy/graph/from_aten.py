"""Conversion of aten operations to graph nodes.

A converter gets a :class:`Conversion`: the operation's arguments and result,
and functions that return and add nodes. It returns the nodes of the results,
or that of the first one, or ``None`` if the graph has no such operation.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from fgc_mm.deploy.graph.ir import Node, Op
from fgc_mm.runtime.format import Act, Activation, Math

aten = torch.ops.aten
Converter = Callable[['Conversion'], 'Node | list[Node] | None']
CONVERTERS: dict[Any, Converter] = {}


@dataclass
class Conversion:
    """One operation to convert.

    Attributes:
        node_of: Returns the node of a tensor, also of a constant.
        emit: Adds a node that the returned ones read.
        args: Arguments by name.
        result: What torch computed.
    """

    node_of: Callable[[Tensor], Node]
    emit: Callable[[Node], Node]
    args: dict[str, Any]
    result: Any

    def __getitem__(self, name: str) -> Any:
        return self.args.get(name)

    def node(self, name: str = 'self') -> Node:
        return self.node_of(self.args[name])

    def dim(self) -> int:
        """The dimension, counted from the first; 0 by default."""
        return (self['dim'] or 0) % self['self'].dim()

    def dims(self) -> tuple[int, ...]:
        """The dimensions, counted from the first."""
        return tuple(d % self['self'].dim() for d in self['dims'])

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
            shape = tuple(tree_leaves(self.result)[0].shape)
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
    return c.make(
        Op.CONV,
        c.node('input'),
        weight=weight,
        bias=bias,
        stride=pair(c['stride']),
        padding=pair(c['padding']),
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


@converts(aten.bmm.default)
def _matmul(c: Conversion) -> Node:
    return c.make(Op.MATMUL, c.node(), c.node('mat2'))


@converts(
    aten.native_batch_norm.default,
    aten._native_batch_norm_legit_no_training.default,
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
        Op.AFFINE, c.node('input'), scale=scale, shift=shift, slope=None, dim=1
    )


@converts(aten.native_layer_norm.default, aten.native_group_norm.default)
def _norm(c: Conversion) -> Node | None:
    groups = c['group'] or 0
    if not groups and len(c['normalized_shape']) != 1:
        return None
    attrs = dict(eps=c['eps'], groups=groups)
    weight, bias = c.optional('weight'), c.optional('bias')
    return c.make(Op.NORM, c.node('input'), weight=weight, bias=bias, **attrs)


def _clamp(c: Conversion) -> Activation:
    low = -math.inf if c['min'] is None else float(c['min'])
    high = math.inf if c['max'] is None else float(c['max'])
    return Activation(Act.CLAMP, low, high)


def _gelu(c: Conversion) -> Activation:
    return Activation(
        Act.GELU_TANH if c['approximate'] == 'tanh' else Act.GELU
    )


def _elu(c: Conversion) -> Activation | None:
    if c['scale'] not in (None, 1) or c['input_scale'] not in (None, 1):
        return None
    return Activation(
        Act.ELU, 1.0 if c['alpha'] is None else float(c['alpha'])
    )


def _not(c: Conversion) -> Activation | None:
    """Logical not; booleans are 0 and 1."""
    if c['self'].dtype != torch.bool:
        return None
    return Activation(Act.LINEAR, -1.0, 1.0)


def _power(c: Conversion) -> Activation | None:
    kinds = {2: Act.SQUARE, 0.5: Act.SQRT, -1: Act.RECIPROCAL}
    kind = kinds.get(c['exponent'])
    return None if kind is None else Activation(kind)


ACTIVATIONS: dict[Any, Callable[[Conversion], Activation | None]] = {
    aten.relu.default: lambda c: Activation(Act.RELU),
    aten.hardswish.default: lambda c: Activation(Act.HARDSWISH),
    aten.hardsigmoid.default: lambda c: Activation(Act.HARDSIGMOID),
    aten.sigmoid.default: lambda c: Activation(Act.SIGMOID),
    aten.tanh.default: lambda c: Activation(Act.TANH),
    aten.mish.default: lambda c: Activation(Act.MISH),
    aten.abs.default: lambda c: Activation(Act.ABS),
    aten.sqrt.default: lambda c: Activation(Act.SQRT),
    aten.exp.default: lambda c: Activation(Act.EXP),
    aten.log.default: lambda c: Activation(Act.LOG),
    aten.reciprocal.default: lambda c: Activation(Act.RECIPROCAL),
    aten.silu.default: lambda c: Activation(Act.SILU, 1.0),
    aten.bitwise_not.default: _not,
    aten.logical_not.default: _not,
    aten.neg.default: lambda c: Activation(Act.LINEAR, -1.0),
    aten.gt.Scalar: lambda c: Activation(Act.GREATER, float(c['other'])),
    aten.leaky_relu.default: lambda c: Activation(
        Act.LEAKY_RELU, float(c['negative_slope'])
    ),
    aten.hardtanh.default: lambda c: Activation(
        Act.CLAMP, float(c['min_val']), float(c['max_val'])
    ),
    aten.clamp.default: _clamp,
    aten.clamp_min.default: _clamp,
    aten.clamp_max.default: _clamp,
    aten.gelu.default: _gelu,
    aten.elu.default: _elu,
    aten.pow.Tensor_Scalar: _power,
    aten.rsub.Scalar: lambda c: Activation(
        Act.LINEAR,
        -float(1 if c['alpha'] is None else c['alpha']),
        float(c['other']),
    ),
}


def _unary(activation: Callable[[Conversion], Activation | None]) -> Converter:
    def convert(c: Conversion) -> Node | None:
        act = activation(c)
        return None if act is None else c.make(Op.UNARY, c.node(), act=act)

    return convert


for function, activation in ACTIVATIONS.items():
    CONVERTERS[function] = _unary(activation)


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
            Op.UNARY, c.node(), act=_with_number(math_, alpha * other)
        )

    return convert


def _with_number(math_: Math, number: float) -> Activation:
    inverse = 1.0 / number if number else math.inf
    return {
        Math.ADD: Activation(Act.LINEAR, 1.0, number),
        Math.SUB: Activation(Act.LINEAR, 1.0, -number),
        Math.MUL: Activation(Act.LINEAR, number, 0.0),
        Math.DIV: Activation(Act.LINEAR, inverse, 0.0),
        Math.MAX: Activation(Act.CLAMP, number, math.inf),
        Math.MIN: Activation(Act.CLAMP, -math.inf, number),
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


@converts(aten.max_pool2d_with_indices.default)
def _max_pool(c: Conversion) -> Node | None:
    return _pool(c, pair(c['kernel_size']), average=False, outside=False)


@converts(aten.avg_pool2d.default)
def _avg_pool(c: Conversion) -> Node | None:
    if c['divisor_override']:
        return None
    outside = c['count_include_pad'] is not False
    if outside and c['ceil_mode']:
        return None
    return _pool(c, pair(c['kernel_size']), average=True, outside=outside)


def _pool(
    c: Conversion, kernel: tuple[int, int], average: bool, outside: bool
) -> Node | None:
    if c['self'].dim() != 4:
        return None
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


@converts(aten._adaptive_avg_pool2d.default)
def _adaptive_pool(c: Conversion) -> Node | None:
    if tuple(c['output_size']) == (1, 1):
        return c.make(Op.MEAN, c.node(), dims=(2, 3), keep=True)
    return _equal_windows(c, average=True)


def _equal_windows(c: Conversion, average: bool) -> Node | None:
    """An adaptive pool as a plain one, if its windows do not overlap."""
    size, out = c['self'].shape[-2:], c['output_size']
    if any(n % m for n, m in zip(size, out)):
        return None
    rows, columns = (n // m for n, m in zip(size, out))
    return _pool(c, (rows, columns), average=average, outside=False)


converts(aten.adaptive_max_pool2d.default)(
    partial(_equal_windows, average=False)
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
    dim = c.dim()
    size = c['self'].shape[dim]
    limits = slice(c['start'], c['end'], c['step']).indices(size)
    return part_of(c, c.node(), dim, *limits)


def part_of(
    c: Conversion, x: Node, dim: int, start: int, stop: int, step: int = 1
) -> Node:
    """Emit a slice of a node; the node itself if it is all of it."""
    if (start, stop, step) == (0, x.shape[dim], 1):
        return x
    size = len(range(start, stop, step))
    shape = (*x.shape[:dim], size, *x.shape[dim + 1 :])
    attrs = dict(dim=dim, start=start, stop=stop, step=step)
    return c.emit(c.make(Op.SLICE, x, shape=shape, **attrs))


@converts(aten.select.int)
def _select(c: Conversion) -> Node:
    dim = c.dim()
    index = c['index'] % c['self'].shape[dim]
    return c.make(Op.SELECT, c.node(), dim=dim, index=index)


@converts(aten.constant_pad_nd.default)
def _pad(c: Conversion) -> Node | None:
    if c['value']:
        return None
    pads = c['pad']
    if any(n < 0 for n in pads):
        return None
    pairs = [*zip(pads[::2], pads[1::2])][::-1]
    whole = [(0, 0)] * (c['self'].dim() - len(pairs)) + pairs
    return c.make(Op.PAD, c.node(), pads=tuple(whole))


@converts(aten.permute.default)
def _permute(c: Conversion) -> Node:
    return c.make(Op.PERMUTE, c.node(), dims=c.dims())


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
    if shape == x.shape:
        return x
    if len(shape) != len(x.shape):
        front = (1,) * (len(shape) - len(x.shape))
        x = c.emit(c.make(Op.RESHAPE, x, shape=front + x.shape))
    return c.make(Op.EXPAND, x)


@converts(aten.clone.default, aten.detach.default, aten.alias.default)
def _same(c: Conversion) -> Node:
    return c.node()


@converts(aten._to_copy.default)
def _convert(c: Conversion) -> Node | None:
    """Conversions that keep values; booleans are 0 and 1."""
    before, after = c['self'].dtype, c['dtype'] or c['self'].dtype
    kept = after == torch.float32 and before in (torch.float32, torch.bool)
    return c.node() if kept or after == before == torch.bool else None


@converts(aten.unbind.int)
def _unbind(c: Conversion) -> list[Node]:
    x, dim = c.node(), c.dim()
    return [
        c.make(Op.SELECT, x, dim=dim, index=index)
        for index in range(x.shape[dim])
    ]


@converts(aten.split.Tensor, aten.split_with_sizes.default)
def _split(c: Conversion) -> list[Node]:
    dim = c.dim()
    stops = [*itertools.accumulate(part.shape[dim] for part in c.result)]
    return [
        part_of(c, c.node(), dim, start, stop)
        for start, stop in zip([0, *stops], stops)
    ]


@converts(aten.flip.default)
def _flip(c: Conversion) -> Node:
    x = c.node()
    for dim in c.dims():
        index = torch.arange(x.shape[dim]).flip(0)
        x = c.emit(c.make(Op.TAKE, x, dim=dim, index=index))
    return x


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
    dim %= c['self'].dim()
    index = index % c['self'].shape[dim]
    return c.make(Op.TAKE, c.node(), dim=dim, index=index)


@converts(aten._softmax.default)
def _softmax(c: Conversion) -> Node:
    return c.make(Op.SOFTMAX, c.node(), dim=c.dim())


@converts(aten._scaled_dot_product_flash_attention_for_cpu.default)
def _attention(c: Conversion) -> Node | None:
    if c['is_causal'] or c['dropout_p']:
        return None
    names = ['query', 'key', 'value']
    if c['attn_mask'] is not None:
        names.append('attn_mask')
    scale = c['scale'] or c['query'].shape[-1] ** -0.5
    return c.make(Op.ATTENTION, *map(c.node, names), scale=scale)


@converts(aten.upsample_nearest2d.default, aten.upsample_bilinear2d.default)
def _resize(c: Conversion) -> Node:
    given = (c['scales_h'], c['scales_w'])
    return c.make(
        Op.RESIZE,
        c.node(),
        bilinear='align_corners' in c.args,
        corners=bool(c['align_corners']),
        scale=tuple(1 / s if s else 0.0 for s in given),
    )
