"""Lowering of convs, linear layers, matrix products and attention."""

from __future__ import annotations

import math
from dataclasses import replace

from torch import Tensor

from fgc_mm.deploy.graph.emit import NotSupported
from fgc_mm.deploy.graph.ir import ALL, Node, Op
from fgc_mm.deploy.graph.layout_tracker import CHANNEL, LayoutTracker
from fgc_mm.deploy.graph.value_layout import Box, ValueLayout, dim_of, triple
from fgc_mm.runtime import format as f

MAX_IMAGES = 256  # of a conv that becomes one op per image


def conv(low: LayoutTracker, node: Node) -> ValueLayout:
    x = low.map(node.inputs[0])
    y = low.new(node.shape)
    images, inputs = node.inputs[0].shape[:2]
    if images == 1:
        parts = [(x, y.value)]
    elif 1 < node.groups == inputs:  # depthwise
        node, parts = _of_all_images(node, images), [(x, y.value)]
    elif images > MAX_IMAGES:
        raise NotSupported(f'a conv of {images} images')
    else:
        boxes = triple(node.inputs[0].shape[1:]), triple(node.shape[1:])
        parts = [
            (_image(low, x, n, boxes[0]), _image(low, y.value, n, boxes[1]))
            for n in range(images)
        ]
    for x, y_part in parts:
        low.out.add(product(low, node, x, y_part, node.weight))
    return y


def _image(low: LayoutTracker, value: int, number: int, box: Box) -> int:
    """One image of a value of several."""
    return low.out.view(value, (number * box[0], 0, 0), box)


def _of_all_images(node: Node, images: int) -> Node:
    """A depthwise conv of several images as one of all their channels."""
    attrs = dict(
        node.attrs,
        weight=node.weight.repeat(images, 1, 1, 1),
        bias=None if node.bias is None else node.bias.repeat(images),
        groups=node.groups * images,
    )
    return replace(node, attrs=attrs, writes=ALL)


def matmul(low: LayoutTracker, node: Node) -> ValueLayout:
    """A product of (..., I, K) and (..., K, J) with equal leading sizes."""
    first, second = node.inputs
    lead = node.shape[:-2]
    if first.shape[:-2] != lead or second.shape[:-2] != lead:
        raise NotSupported('a product of matrices that are broadcast')
    axes = [0 for _ in lead] + [1, 2]  # matrices (rows, columns)
    x, w = low.along_axes(first, axes), low.along_axes(second, axes)
    y = low.new(node.shape, axes)
    low.out.add(f.MatMul(x, w, y.value))
    return y


def linear(low: LayoutTracker, node: Node) -> ValueLayout:
    (first, *_), rank = node.inputs, len(node.shape)
    x = low.channels_at(first, rank - 1)
    _, height, width = x.box
    value = low.out.storage(node.shape[-1], height, width)
    channels = dim_of(node.shape[-1], CHANNEL)
    y = ValueLayout(value, (*x.dims[:-1], channels))
    weight = node.weight[:, :, None, None]
    low.out.add(product(low, node, x.value, value, weight, y))
    return y


def product(
    low: LayoutTracker,
    node: Node,
    x: int,
    y: int,
    weight: Tensor,
    like: ValueLayout | None = None,
) -> f.Conv:
    """A conv op, with the weight layout that suits its channel lists."""
    outputs, inputs, rows, columns = weight.shape
    taps = rows * columns
    values = low.out.program.values[y]
    single = taps == 1 and values.height * values.width == 1
    by_input = node.reads is not ALL
    if single:
        by_input = node.writes is ALL
    add = f.NONE
    if len(node.inputs) > 1:
        like = like or ValueLayout.packed(y, node.shape)
        add = low.broadcast_to(node.inputs[1], like)
    steps = (inputs * taps, taps)
    if by_input:
        weight = weight.transpose(0, 1)
        steps = (taps, outputs * taps)
    kernel, attrs = (rows, columns), node.attrs
    return f.Conv(
        x,
        y,
        add,
        low.out.list_index(node.reads),
        low.out.list_index(node.writes),
        attrs.get('groups', 1),
        kernel,
        attrs.get('stride', (1, 1)),
        attrs.get('padding', (0, 0)),
        attrs.get('dilation', (1, 1)),
        low.out.weights(weight.contiguous()),
        *steps,
        low.out.optional(attrs.get('bias')),
        node.act,
    )


def attention(low: LayoutTracker, node: Node) -> ValueLayout:
    q, k, v, *bias = node.inputs
    if not q.shape[:-2] == k.shape[:-2] == v.shape[:-2]:
        raise NotSupported('attention with different numbers of heads')
    rank = len(q.shape)
    # (rows, ..., heads, L, d) in a value (heads d, rows, L)
    axes = [*[1] * rank, 0, 2, 0][-rank:]
    query, key, value = (low.along_axes(x, axes) for x in (q, k, v))
    y = low.new(node.shape, axes)
    shape = (1, *q.shape[:-1], k.shape[-2])
    scores = _scores(low, bias[0], shape) if bias else f.NONE
    heads = shape[-3]
    scale = float(node.scale)
    low.out.add(f.Attention(query, key, value, scores, y.value, heads, scale))
    return y


def _scores(low: LayoutTracker, bias: Node, shape: tuple[int, ...]) -> int:
    """A constant added to the scores, as a value (heads, rows, L M).

    The shape is that of the scores, (..., heads, L, M); heads and rows of the
    constant may be broadcast.
    """
    if bias.op is not Op.CONSTANT:
        raise NotSupported('attention with a bias computed from the image')
    missing = len(shape) - len(bias.shape)
    numbers = bias.tensor.float().reshape((1,) * missing + bias.shape)
    *rows, heads, _, _ = numbers.shape
    if math.prod(rows) > 1:
        rows = list(shape[:-3])
    numbers = numbers.expand(*rows, heads, *shape[-2:])
    numbers = numbers.reshape(math.prod(rows), heads, -1).transpose(0, 1)
    return low.out.constant(numbers.contiguous())
