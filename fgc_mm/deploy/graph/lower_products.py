"""Lowering of convs, linear layers and matrix products."""

from __future__ import annotations

import math

from torch import Tensor

from fgc_mm.deploy.graph.atoms import Atom, Layout
from fgc_mm.deploy.graph.emit import canonical
from fgc_mm.deploy.graph.ir import ALL, Node, Op
from fgc_mm.deploy.graph.placing import (
    CHANNEL,
    NotThis,
    Placing,
)
from fgc_mm.runtime import format as f

MOST_IMAGES = 256  # of a conv that becomes one op per image


def conv(low: Placing, node: Node) -> Layout:
    x = low.map(node.inputs[0])
    y = low.usual(node.shape)
    (top, _), (left, _) = node.padding
    geometry = node.stride, (top, left)
    images, inputs = node.inputs[0].shape[:2]
    depthwise = 1 < node.groups == inputs
    if node.groups > 1 and not depthwise and node.writes is not ALL:
        raise NotThis('a grouped conv of listed channels')
    if images == 1:
        parts = [(x, y.value)]
    elif depthwise:
        node, parts = _of_all_images(node, images), [(x, y.value)]
    elif images > MOST_IMAGES:
        raise NotThis(f'a conv of {images} images')
    else:
        parts = [
            tuple(
                low.out.view(value, (n * shape[1], 0, 0), shape[1:])
                for value, shape in (
                    (x, node.inputs[0].shape),
                    (y.value, node.shape),
                )
            )
            for n in range(images)
        ]
    for x, y_part in parts:
        low.out.add(_product(low, node, x, y_part, node.weight, geometry))
    return y


def _of_all_images(node: Node, images: int) -> Node:
    """A depthwise conv of several images as one of all their channels."""
    bias = None if node.bias is None else node.bias.repeat(images)
    attrs = dict(
        node.attrs,
        weight=node.weight.repeat(images, 1, 1, 1),
        bias=bias,
        groups=node.groups * images,
    )
    return Node(
        Op.CONV, node.inputs, node.shape, attrs, node.name, act=node.act
    )


def matmul(low: Placing, node: Node) -> Layout:
    """A product of (..., I, K) and (..., K, J) with equal leading sizes."""
    first, second = node.inputs
    lead = node.shape[:-2]
    if first.shape[:-2] != lead or second.shape[:-2] != lead:
        raise NotThis('a product of matrices that are broadcast')
    x, w = _matrices(low, first), _matrices(low, second)
    y = low.out.storage(math.prod(lead), *node.shape[-2:])
    low.out.add(f.MatMul(x, w, y))
    return Layout(y, (0, 0, 0), _matrix_dims(node.shape))


def _matrices(low: Placing, node: Node) -> int:
    """A value whose channels are the matrices (rows, columns)."""
    shape = node.shape
    box = (math.prod(shape[:-2]), *shape[-2:])
    return low.lying(node, _matrix_dims(shape), box)


def _matrix_dims(shape: tuple[int, ...]) -> tuple[tuple[Atom, ...], ...]:
    steps, step = [(0, 1, 0), (0, 0, 1)], 1
    for size in reversed(shape[:-2]):
        steps.insert(0, (step, 0, 0))
        step *= size
    return tuple(
        (Atom(size, vector),) if size > 1 else ()
        for size, vector in zip(shape, steps)
    )


def linear(low: Placing, node: Node) -> Layout:
    (first, *_), rank = node.inputs, len(node.shape)
    x, box, layout = low.channels_at(first, rank - 1)
    y = low.out.storage(node.shape[-1], *box[1:])
    channels = (Atom(node.shape[-1], CHANNEL),)
    if node.shape[-1] == 1:
        channels = ()
    result = Layout(y, (0, 0, 0), (*layout.dims[:-1], channels))
    weight = node.weight[:, :, None, None]
    low.out.add(_product(low, node, x, y, weight, ((1, 1), (0, 0)), result))
    return result


def _product(
    low: Placing,
    node: Node,
    x: int,
    y: int,
    weight: Tensor,
    geometry: tuple[tuple[int, int], tuple[int, int]],
    like: Layout | None = None,
) -> f.Conv:
    """A conv op, with the weight layout that suits its channel lists."""
    taps = weight[0, 0].numel()
    outputs, inputs = weight.shape[:2]
    values = low.out.program.values[y]
    single = taps == 1 and values.height * values.width == 1
    by_input = node.reads is not ALL
    if single:
        by_input = node.writes is ALL
    add = f.NONE
    if len(node.inputs) > 1:
        like = like or canonical(y, node.shape)
        add = low.as_spread(node.inputs[1], like)
    steps = (inputs * taps, taps)
    if by_input:
        weight = weight.transpose(0, 1)
        steps = (taps, outputs * taps)
    stride, padding = geometry
    return f.Conv(
        x,
        y,
        add,
        low.set_of(node.reads),
        low.set_of(node.writes),
        node.attrs.get('groups', 1),
        tuple(weight.shape[2:]),
        tuple(stride),
        tuple(padding),
        tuple(node.attrs.get('dilation', (1, 1))),
        low.out.weights(weight.contiguous()),
        *steps,
        low.out.optional(node.bias),
        node.act,
    )
