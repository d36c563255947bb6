"""Convs and linear layers as ops."""

from __future__ import annotations

from torch import Tensor

from fgc_mm.deploy.graph.atoms import Atom, Layout
from fgc_mm.deploy.graph.emit import canonical
from fgc_mm.deploy.graph.ir import ALL, Node
from fgc_mm.deploy.graph.placing import (
    CHANNEL,
    NotThis,
    Placing,
)
from fgc_mm.runtime import format as f


def conv(low: Placing, node: Node) -> Layout:
    x = low.map(node.inputs[0])
    y = low.usual(node.shape)
    (top, _), (left, _) = node.padding
    groups = node.groups
    depthwise = groups > 1 and groups == node.inputs[0].shape[1]
    if groups > 1 and not depthwise and node.writes is not ALL:
        raise NotThis('a grouped conv of listed channels')
    low.out.add(
        _product(
            low, node, x, y.value, node.weight, (node.stride, (top, left))
        )
    )
    return y


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
    """A conv; its weights lie as its lists want them."""
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
