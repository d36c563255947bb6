"""Lowering a graph to a program: layouts of tensors, and runtime ops.

Operations that only move elements (reshape, permute, slice) cost nothing:
the result is the same memory with another layout
(:class:`~fgc_mm.deploy.graph.value_layout.ValueLayout`). Where an operation
needs another layout of its input, a move is inserted.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from fgc_mm.deploy.graph import (
    lower_elementwise,
    lower_moves,
    lower_pools,
    lower_products,
)
from fgc_mm.deploy.graph.emit import NotSupported
from fgc_mm.deploy.graph.interpreter import run_node
from fgc_mm.deploy.graph.ir import ALL, Graph, Node, Op, lists_in
from fgc_mm.deploy.graph.layout_tracker import LayoutTracker
from fgc_mm.deploy.graph.value_layout import ValueLayout
from fgc_mm.runtime import format as f


class CannotLower(Exception):
    """The runtime has no op for an operation, which the text names."""


class Lowering(LayoutTracker):
    """Lowers a graph to a program.

    Args:
        graph: Simplified, with channel lists, and fused.
        calls: Whether operations of torch may be called.

    Attributes:
        functions: The called operations, by index.
        fallbacks: A description of each.

    Raises:
        CannotLower: The runtime does not have an operation, and calls are
            not allowed.
    """

    def __init__(self, graph: Graph, calls: bool = True) -> None:
        super().__init__()
        self.graph, self._calls = graph, calls
        lists = [y for x in graph.nodes for y in (x.reads, x.writes)]
        self._lists = {y.decision: y for x in lists for y in lists_in(x)}
        self.functions: list[Callable[[list, list], None]] = []
        self.fallbacks: list[str] = []

    def program(self) -> f.Program:
        """The program; its outputs are the graph's, then those of sites.

        For every site: its mask, and its records.
        """
        out = self.out
        for node in self.graph.nodes:
            out.record, out.node = node.records_only, node
            out.name = node.name or node.op.value
            if node.op is not Op.CONSTANT:
                self.layouts[node] = self._lower(node)
        out.node = self.graph.outputs[0]
        for x in self.graph.outputs:
            if x.shape[:1] != (1,):
                raise CannotLower(f'it returns {x.shape} for one image')
        outputs = [self.contiguous(x) for x in self.graph.outputs]
        count = len(outputs)
        out.record = True
        for site in self.graph.sites:
            out.name = f'records of {site.name}'
            for out.node in (site.decision, *site.records):
                outputs.append(self.contiguous(out.node))
        return out.finish(outputs, count)

    def _lower(self, node: Node) -> ValueLayout:
        if node.op is Op.CALL:
            return self._call(node, str(node.function))
        try:
            return RULES[node.op](self, node)
        except NotSupported as error:
            return self._call(node, str(error))

    def _call(self, node: Node, what: str) -> ValueLayout:
        """Lower an operation that the runtime lacks to a call of torch."""
        if not self._calls:
            raise CannotLower(f'{node.name or "it"} uses {what}')
        listed = node.reads is not ALL or node.writes is not ALL
        if listed and node.op in (Op.CONV, Op.LINEAR, Op.CLEAR):
            raise CannotLower(f'{node.name} uses {what} on listed channels')
        xs = [self.contiguous(x) for x in node.inputs]
        layout = self.new_contiguous(node.shape)
        self.functions.append(partial(_run_in_torch, node))
        self.fallbacks.append(f'{node.name}: {what}')
        self.out.add(f.Call(len(self.functions) - 1, xs, [layout.value]))
        return layout

    def _image(self, node: Node) -> ValueLayout:
        value = self.out.image(*node.shape[1:])
        return ValueLayout.packed(value, node.shape)

    def _decision(self, node: Node) -> ValueLayout:
        layout = self.channels_at(node.inputs[0], 1)
        if node in self._lists:
            channels = self._lists[node]
            listed = self.out.new_list(channels.channels)
            self.out.lists[channels] = listed
            self.out.add(f.List(layout.value, listed), record=False)
        return layout


@torch.no_grad()
def _run_in_torch(node: Node, xs: list[Any], ys: list[Any]) -> None:
    """Compute a node on contiguous arrays."""
    values = {
        value: torch.from_numpy(x.copy()).reshape(value.shape)
        for x, value in zip(xs, node.inputs)
    }
    with torch.autocast('cpu', enabled=False):
        y = run_node(node, values, poison=False)
    ys[0][...] = y.reshape(ys[0].shape).numpy()


RULES: dict[Op, Callable[[Lowering, Node], ValueLayout]] = {
    Op.IMAGE: Lowering._image,
    Op.CONV: lower_products.conv,
    Op.LINEAR: lower_products.linear,
    Op.MATMUL: lower_products.matmul,
    Op.AFFINE: lower_elementwise.affine,
    Op.NORM: lower_elementwise.norm,
    Op.UNARY: lower_elementwise.unary,
    Op.BINARY: lower_elementwise.binary,
    Op.POOL: lower_pools.pool,
    Op.MEAN: lower_pools.mean,
    Op.CONCAT: lower_moves.concat,
    Op.SLICE: lower_moves.slice_,
    Op.SELECT: lower_moves.select,
    Op.PAD: lower_moves.pad,
    Op.PERMUTE: lower_moves.permute,
    Op.RESHAPE: lower_moves.reshape,
    Op.EXPAND: lower_moves.expand,
    Op.TAKE: lower_moves.take,
    Op.ATTENTION: lower_products.attention,
    Op.SOFTMAX: lower_elementwise.softmax,
    Op.RESIZE: lower_pools.resize,
    Op.TOPK: lower_elementwise.topk,
    Op.DECISION: Lowering._decision,
    Op.CLEAR: lower_moves.clear,
}
