"""From a graph to a program: where tensors lie, and which ops there are.

Operations that only move numbers (reshape, permute, slice) cost nothing: the
tensor is the same numbers, described in another way
(:class:`~fgc_mm.deploy.graph.atoms.Layout`). Where an operation needs its
input to lie otherwise, one move is put in front.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fgc_mm.deploy.graph.atoms import Atom, Layout, extents, merged, refined
from fgc_mm.deploy.graph.emit import Emitter, canonical, flat_layout
from fgc_mm.deploy.graph.ir import ALL, ChannelList, Graph, Node, Op
from fgc_mm.runtime import format as f

CHANNEL = (1, 0, 0)
ROW = (0, 1, 0)
COLUMN = (0, 0, 1)
MOST_RUNS = 64  # of a gather of numbers that are known


class CannotLower(Exception):
    """What the runtime has no op for, in words."""


class Lowering:
    """A graph that becomes a program.

    Args:
        graph: Simplified, listed and fused.
        calls: Whether operations of torch itself may be called.

    Attributes:
        functions: Those that are called, in the order of their numbers.
        fallbacks: For each, what it is, in words.
        nodes: The node that every op of the program serves.

    Raises:
        CannotLower: It has an operation that the runtime has not, and calls
            are not allowed.
    """

    def __init__(self, graph: Graph, calls: bool = True) -> None:
        self.graph, self._calls = graph, calls
        self.out = Emitter()
        self.functions: list[Callable[[list, list], None]] = []
        self.fallbacks: list[str] = []
        self.nodes: list[Node] = []
        self._at: dict[Node, Layout] = {}

    def program(self) -> f.Program:
        """The program; its outputs are the graph's, then those of sites.

        For every site: its mask, and its records.
        """
        for node in self.graph.nodes:
            self.out.record = node.records_only
            self.out.name = node.name or node.op.value
            if node.op is not Op.CONSTANT:
                self._at[node] = self._lower(node)
            self._note(node)
        outputs = [self._in_order(x) for x in self.graph.outputs]
        self._note(self.graph.outputs[0])
        self.out.record = True
        more = []
        for site in self.graph.sites:
            self.out.name = f'records of {site.name}'
            for node in (site.decision, *site.records):
                more.append(self._in_order(node))
                self._note(node)
        return self.out.finish([*outputs, *more], len(outputs))

    def _note(self, node: Node) -> None:
        """The ops that are new are this node's."""
        new = len(self.out.program.ops) - len(self.nodes)
        self.nodes += [node] * new

    def _lower(self, node: Node) -> Layout:
        rule = RULES.get(node.op)
        if rule is None:
            return self._call(node, f'{node.op.value}')
        try:
            return rule(self, node)
        except _NotThis as error:
            return self._call(node, str(error) or node.op.value)

    def _call(self, node: Node, what: str) -> Layout:
        """What the runtime has no op for is computed by torch."""
        if node.op is Op.CALL:
            what = str(node.function)
        if not self._calls:
            raise CannotLower(f'{node.name or "it"} does {what}')
        listed = node.reads is not ALL or node.writes is not ALL
        if listed and node.op in (Op.CONV, Op.LINEAR, Op.CLEAR):
            raise CannotLower(f'{node.name} does {what} on listed channels')
        xs = [self._in_order(x) for x in node.inputs]
        layout = self._storage_in_order(node.shape)
        function = _Function(node)
        self.functions.append(function)
        self.fallbacks.append(f'{node.name}: {what}')
        self.out.add(f.Call(len(self.functions) - 1, xs, [layout.value]))
        return layout

    # where things lie

    def _of(self, node: Node) -> Layout:
        if node.op is Op.CONSTANT:
            return self._constant(node)
        return self._at[node]

    def _constant(self, node: Node) -> Layout:
        value = self.out.constant(node.tensor.float().reshape(1, 1, -1))
        return flat_layout(value, node.shape)

    def _storage_in_order(self, shape: tuple[int, ...]) -> Layout:
        """Memory whose numbers in order are the tensor's in order."""
        if len(shape) == 2 and shape[0] == 1:
            return canonical(self.out.storage(shape[1], 1, 1), shape)
        if len(shape) == 4 and shape[0] == 1:
            return canonical(self.out.storage(*shape[1:]), shape)
        value = self.out.storage(1, 1, math.prod(shape))
        return flat_layout(value, shape)

    def _in_order(self, node: Node) -> int:
        """The value whose numbers in order are the tensor's in order."""
        layout = self._of(node)
        shape = node.shape
        atoms = merged(layout.atoms())
        box = extents(atoms)
        if box is not None and _sorted(atoms, box):
            return self.out.view(layout.value, layout.start, box)
        target = self._storage_in_order(shape)
        self._move(layout, target)
        return target.value

    def _move(
        self,
        x: Layout,
        y: Layout,
        zero: bool = False,
        channels: ChannelList | None = ALL,
    ) -> None:
        listed = self.out.set_of(channels)
        if not self.out.move(x, y, zero, listed):
            raise _NotThis('a move of too many dimensions')

    def _copied(self, layout: Layout, shape: tuple[int, ...]) -> Layout:
        """In memory of its own, as tensors of its rank usually lie."""
        if len(shape) in (2, 3, 4) and shape[0] == 1:
            target = self._usual(shape)
        else:
            value = self.out.storage(1, 1, math.prod(shape))
            target = flat_layout(value, shape)
        self._move(layout, target)
        return target

    def _usual(self, shape: tuple[int, ...]) -> Layout:
        """New memory for (1, C), (1, L, C) or (1, C, H, W)."""
        boxes = {
            2: (shape[-1], 1, 1),
            3: (shape[-1], 1, shape[1]),
            4: tuple(shape[1:]),
        }
        return canonical(self.out.storage(*boxes[len(shape)]), shape)

    def _map(self, node: Node) -> int:
        """A value (C, H, W) of a tensor (1, C, H, W)."""
        layout, shape = self._of(node), node.shape
        if len(shape) != 4 or shape[0] != 1:
            raise _NotThis(f'{node.op.value} of {len(shape)} dimensions')
        whole = canonical(layout.value, shape)
        if layout.dims != whole.dims:
            layout = self._copied(layout, shape)
        return self.out.view(layout.value, layout.start, shape[1:])

    def _channels_at(
        self, node: Node, dim: int
    ) -> tuple[int, tuple[int, int, int], Layout]:
        """A tensor as a map whose channels are one of its dimensions.

        Returns:
            The value, its (C, H, W), and the layout there.
        """
        layout = self._of(node)
        box = self._box_at(layout, dim)
        if box is None:
            layout = self._with_channels(node, dim)
            box = self._box_at(layout, dim)
        view = self.out.view(layout.value, layout.start, box)
        return view, box, Layout(view, (0, 0, 0), layout.dims)

    def _box_at(self, layout: Layout, dim: int) -> tuple[int, int, int] | None:
        channels = layout.dims[dim]
        others = [
            atom
            for d, atoms in enumerate(layout.dims)
            for atom in atoms
            if d != dim
        ]
        if any(a.step[0] for a in others):
            return None
        if channels and (len(channels) > 1 or channels[0].step != CHANNEL):
            return None
        return extents([*channels, *others])

    def _with_channels(self, node: Node, dim: int) -> Layout:
        """A copy whose channels are one of the tensor's dimensions."""
        shape = node.shape
        others = [d for d in range(len(shape)) if d != dim]
        positions = math.prod(shape[d] for d in others)
        if len(shape) == 4 and shape[0] == 1 and dim == 1:
            target = self._usual(shape)
        else:
            value = self.out.storage(shape[dim], 1, positions)
            dims, step = [()] * len(shape), 1
            for d in reversed(others):
                if shape[d] > 1:
                    dims[d] = (Atom(shape[d], (0, 0, step)),)
                step *= shape[d]
            if shape[dim] > 1:
                dims[dim] = (Atom(shape[dim], CHANNEL),)
            target = Layout(value, (0, 0, 0), tuple(dims))
        self._move(self._of(node), target)
        return target

    def _set(self, channels: ChannelList | None) -> int:
        return self.out.set_of(channels)

    def _writes(self, node: Node, layout: Layout) -> int:
        """The set that an op computes; all, where it is no set of channels."""
        if node.writes is ALL:
            return f.ALL
        atoms = layout.dims[node.channel_dim]
        if layout.start[0] or len(atoms) != 1 or atoms[0].step != CHANNEL:
            return f.ALL
        return self._set(node.writes)

    # operations

    def _image(self, node: Node) -> Layout:
        value = self.out.image(*node.shape[1:])
        return canonical(value, node.shape)

    def _conv(self, node: Node) -> Layout:
        x = self._map(node.inputs[0])
        y = self._usual(node.shape)
        (top, _), (left, _) = node.padding
        groups = node.groups
        depthwise = groups > 1 and groups == node.inputs[0].shape[1]
        if groups > 1 and not depthwise and node.writes is not ALL:
            raise _NotThis('a grouped conv of listed channels')
        self.out.add(
            self._product(
                node, x, y.value, node.weight, (node.stride, (top, left))
            )
        )
        return y

    def _linear(self, node: Node) -> Layout:
        (first, *_), rank = node.inputs, len(node.shape)
        x, box, layout = self._channels_at(first, rank - 1)
        y = self.out.storage(node.shape[-1], *box[1:])
        channels = (Atom(node.shape[-1], CHANNEL),)
        if node.shape[-1] == 1:
            channels = ()
        result = Layout(y, (0, 0, 0), (*layout.dims[:-1], channels))
        weight = node.weight[:, :, None, None]
        self.out.add(
            self._product(node, x, y, weight, ((1, 1), (0, 0)), result)
        )
        return result

    def _product(
        self,
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
        values = self.out.program.values[y]
        single = taps == 1 and values.height * values.width == 1
        by_input = node.reads is not ALL
        if single:
            by_input = node.writes is ALL
        add = f.NONE
        if len(node.inputs) > 1:
            like = like or canonical(y, node.shape)
            add = self._as(node.inputs[1], like)
        steps = (inputs * taps, taps)
        if by_input:
            weight = weight.transpose(0, 1)
            steps = (taps, outputs * taps)
        stride, padding = geometry
        return f.Conv(
            x,
            y,
            add,
            self._set(node.reads),
            self._set(node.writes),
            node.attrs.get('groups', 1),
            tuple(weight.shape[2:]),
            tuple(stride),
            tuple(padding),
            tuple(node.attrs.get('dilation', (1, 1))),
            self.out.weights(weight.contiguous()),
            *steps,
            self.out.optional(node.bias),
            node.act,
        )

    def _as(self, node: Node, like: Layout) -> int:
        """The value of a tensor that lies as another one, or is spread over
        it: each axis is as there, or 1."""
        layout = self._of(node)
        box = extents(like.atoms())
        front = ((),) * (len(like.dims) - len(layout.dims))
        layout = replace(layout, dims=front + layout.dims)
        found = self._spread_box(layout, like, box)
        if found is None:
            shape = (1,) * len(front) + node.shape
            layout = self._arranged(node, layout, shape, like)
            found = self._spread_box(layout, like, box)
        if found is None:
            raise _NotThis('a sum of tensors that lie apart')
        return self.out.view(layout.value, layout.start, found)

    def _spread_box(
        self, layout: Layout, like: Layout, box: tuple[int, int, int]
    ) -> tuple[int, int, int] | None:
        """(C, H, W), or 1 in their stead, if it lies as the other."""
        there = [True, True, True]
        spread = [True, True, True]
        for mine, other in zip(layout.dims, like.dims):
            if not mine:
                for atom in other:
                    for axis in range(3):
                        there[axis] &= not atom.step[axis]
                continue
            pairs = refined(mine, other)
            if pairs is None:
                return None
            for _, step, wanted in pairs:
                for axis in range(3):
                    if wanted[axis]:
                        spread[axis] &= not any(step)
                        there[axis] &= step == wanted
        if not all(a or b for a, b in zip(there, spread)):
            return None
        return tuple(n if a else 1 for n, a in zip(box, there))

    def _arranged(
        self,
        node: Node,
        layout: Layout,
        shape: tuple[int, ...],
        like: Layout,
    ) -> Layout:
        """A copy that lies as another tensor, where it has its dimensions.

        An axis of the map is 1 if the tensor has none of its dimensions.
        """
        dims = [
            other if size > 1 else () for size, other in zip(shape, like.dims)
        ]
        used = {
            axis
            for dim in dims
            for atom in dim
            for axis in range(3)
            if atom.step[axis]
        }
        # an axis that is used in part is used as a whole
        dims = [
            dim or tuple(a for a in other if _axis(a) in used)
            for dim, other in zip(dims, like.dims)
        ]
        wide = tuple(math.prod(a.size for a in dim) for dim in dims)
        box = extents([a for dim in dims for a in dim])
        if node.op is Op.CONSTANT:
            numbers = node.tensor.float().reshape(shape).expand(wide)
            return self._constant_at(numbers, dims, box)
        target = Layout(self.out.storage(*box), (0, 0, 0), tuple(dims))
        self._move(layout.expanded(wide), target)
        return target

    def _constant_at(
        self, numbers: Tensor, dims: list, box: tuple[int, int, int]
    ) -> Layout:
        atoms = [atom for dim in dims for atom in dim]
        flat = numbers.reshape([a.size for a in atoms] or [1])
        order = sorted(
            range(len(atoms)),
            key=lambda n: (-_axis(atoms[n]), max(atoms[n].step)),
            reverse=True,
        )
        if atoms:
            flat = flat.permute(order)
        value = self.out.constant(flat.reshape(box))
        return Layout(value, (0, 0, 0), tuple(dims))

    def _elementwise(self, node: Node, dim: int | None = None):
        """The value of an input, and where the result lies."""
        (first, *_) = node.inputs
        if dim is not None:
            x, box, layout = self._channels_at(first, dim)
        else:
            layout = self._of(first)
            box = extents(layout.atoms())
            if box is None:
                layout = self._copied(layout, first.shape)
                box = extents(layout.atoms())
            x = self.out.view(layout.value, layout.start, box)
        y = Layout(self.out.storage(*box), (0, 0, 0), layout.dims)
        return x, y

    def _unary(self, node: Node) -> Layout:
        x, y = self._elementwise(node)
        listed = self._writes(node, y)
        self.out.add(f.Unary(x, y.value, listed, node.act))
        return y

    def _affine(self, node: Node) -> Layout:
        x, y = self._elementwise(node, node.dim)
        numbers = [
            self.out.optional(n) for n in (node.scale, node.shift, node.slope)
        ]
        listed = self._writes(node, y)
        self.out.add(f.Affine(x, y.value, listed, *numbers, node.act))
        return y

    def _binary(self, node: Node) -> Layout:
        first, second = node.inputs
        whole = [x for x in node.inputs if x.shape == node.shape]
        whole = [x for x in whole if x.op is not Op.CONSTANT] or whole
        if not whole:
            return self._outer(node)
        like, _ = self._like(whole[0])
        y = Layout(
            self.out.storage(*extents(like.atoms())), (0, 0, 0), like.dims
        )
        xs = [self._as(x, like) for x in (first, second)]
        listed = self._writes(node, y)
        self.out.add(f.Binary(*xs, y.value, listed, node.math, node.act))
        return y

    def _outer(self, node: Node) -> Layout:
        """Both are spread over what comes out."""
        if len(node.shape) not in (2, 3, 4) or node.shape[0] != 1:
            raise _NotThis('a product of tensors that are both spread')
        y = self._usual(node.shape)
        xs = [self._as(x, y) for x in node.inputs]
        listed = self._writes(node, y)
        self.out.add(f.Binary(*xs, y.value, listed, node.math, node.act))
        return y

    def _like(self, node: Node) -> tuple[Layout, int]:
        layout = self._of(node)
        if extents(layout.atoms()) is None:
            layout = self._at[node] = self._copied(layout, node.shape)
        return layout, layout.value

    def _pool(self, node: Node) -> Layout:
        x = self._map(node.inputs[0])
        y = self._usual(node.shape)
        listed = self._writes(node, y)
        self.out.add(
            f.Pool(
                x,
                y.value,
                listed,
                int(node.average),
                tuple(node.kernel),
                tuple(node.stride),
                tuple(node.padding),
                tuple(node.dilation),
                int(node.outside),
                node.act,
            )
        )
        return y

    def _mean(self, node: Node) -> Layout:
        """Over all positions of channels."""
        (x,) = node.inputs
        rest = [
            d
            for d, size in enumerate(x.shape)
            if size > 1 and d not in node.dims
        ]
        if len(rest) > 1:
            raise _NotThis('a mean over some of several dimensions')
        dim = rest[0] if rest else _free_dim(x.shape, node.dims)
        value, box, _ = self._channels_at(x, dim)
        y = self.out.storage(box[0], 1, 1)
        dims = [()] * len(x.shape)
        if box[0] > 1:
            dims[dim] = (Atom(box[0], CHANNEL),)
        kept = [
            atoms
            for d, atoms in enumerate(dims)
            if node.keep or d not in node.dims
        ]
        result = Layout(y, (0, 0, 0), tuple(kept))
        listed = f.ALL
        if node.writes is not ALL and box[0] == node.writes.channels:
            listed = self._set(node.writes)
        self.out.add(f.Mean(value, y, listed, node.act))
        return result

    def _layer_norm(self, node: Node) -> Layout:
        x, y = self._elementwise(node, len(node.shape) - 1)
        numbers = map(self.out.optional, (node.weight, node.bias))
        self.out.add(f.Norm(x, y.value, 0, node.eps, *numbers, node.act))
        return y

    def _group_norm(self, node: Node) -> Layout:
        x, y = self._elementwise(node, 1)
        numbers = map(self.out.optional, (node.weight, node.bias))
        self.out.add(
            f.Norm(x, y.value, node.groups, node.eps, *numbers, node.act)
        )
        return y

    def _permute(self, node: Node) -> Layout:
        return self._of(node.inputs[0]).permuted(node.dims)

    def _reshape(self, node: Node) -> Layout:
        layout = self._of(node.inputs[0])
        shaped = layout.reshaped(node.shape)
        if shaped is None:
            value = self.out.storage(1, 1, math.prod(node.shape))
            flat = flat_layout(value, node.inputs[0].shape)
            self._move(layout, flat)
            shaped = flat.reshaped(node.shape)
        return shaped

    def _expand(self, node: Node) -> Layout:
        return self._of(node.inputs[0]).expanded(node.shape)

    def _slice(self, node: Node) -> Layout:
        (x,) = node.inputs
        layout, dim = self._of(x), node.dim
        size = node.shape[dim]
        if size == x.shape[dim]:
            return layout
        if len(layout.dims[dim]) > 1:
            layout = self._copied(layout, x.shape)
        if not layout.dims[dim]:
            return layout
        return layout.sliced(dim, node.start, size, node.step)

    def _select(self, node: Node) -> Layout:
        (x,) = node.inputs
        layout = self._of(x)
        if len(layout.dims[node.dim]) > 1:
            layout = self._copied(layout, x.shape)
        return layout.selected(node.dim, node.index)

    def _flip(self, node: Node) -> Layout:
        layout = self._of(node.inputs[0])
        for dim in node.dims:
            layout = layout.flipped(dim)
        return layout

    def _pad(self, node: Node) -> Layout:
        (x,) = node.inputs
        y = self._new_like(node, self._of(x))
        inner = y
        for dim, (before, _) in enumerate(node.pads):
            if node.shape[dim] != x.shape[dim]:
                inner = inner.sliced(dim, before, x.shape[dim], 1)
        self._move(self._of(x), inner, zero=True)
        return y

    def _new_like(self, node: Node, layout: Layout) -> Layout:
        """New memory for a tensor, its axes as those of another one."""
        shape = node.shape
        axes = [{_axis(a) for a in dim} for dim in layout.dims]
        if len(shape) in (2, 3, 4) and shape[0] == 1:
            usual = {2: (0,), 3: (2, 0), 4: (0, 1, 2)}[len(shape)]
            if all(a <= {b} for a, b in zip(axes[1:], usual)):
                return self._usual(shape)
        steps, box, dims = [1, 1, 1], [1, 1, 1], [()] * len(shape)
        for dim in reversed(range(len(shape))):
            if shape[dim] == 1:
                continue
            axis = max(axes[dim]) if axes[dim] else 2
            step = [0, 0, 0]
            step[axis] = box[axis]
            dims[dim] = (Atom(shape[dim], tuple(step)),)
            box[axis] *= shape[dim]
            steps[axis] = box[axis]
        return Layout(self.out.storage(*box), (0, 0, 0), tuple(dims))

    def _concat(self, node: Node) -> Layout:
        known = [x for x in node.inputs if x.op is not Op.CONSTANT]
        y = self._new_like(node, self._of((known or node.inputs)[0]))
        start = 0
        for x in node.inputs:
            size = x.shape[node.dim]
            part = y
            if node.shape[node.dim] != size:
                part = y.sliced(node.dim, start, size, 1)
            self._move(self._of(x), part)
            start += size
        return y

    def _take(self, node: Node) -> Layout:
        """Numbers that are known: one move for every run of them."""
        (x,) = node.inputs
        layout, dim = self._of(x), node.dim
        if len(layout.dims[dim]) > 1:
            layout = self._copied(layout, x.shape)
        runs = _runs(node.index.tolist())
        if len(runs) > MOST_RUNS:
            raise _NotThis('a gather')
        y = self._new_like(node, layout)
        start = 0
        for first, count, step in runs:
            part, source = y, layout
            if y.dims[dim]:
                part = y.sliced(dim, start, count, 1)
            if layout.dims[dim]:
                source = _run_of(layout, dim, first, count, step)
            self._move(source, part)
            start += count
        return y

    def _attention(self, node: Node) -> Layout:
        q, k, v = (self._heads(x) for x in node.inputs[:3])
        heads, rows = q[1:]
        for other in (k, v):
            if other[1:] != (heads, rows):
                raise _NotThis('attention of several kinds of heads')
        length, depth = node.shape[-2:]
        y = self.out.storage(heads * depth, rows, length)
        bias = f.NONE
        if len(node.inputs) > 3:
            bias = self._scores(node, heads, rows)
        self.out.add(
            f.Attention(q[0], k[0], v[0], bias, y, heads, float(node.scale))
        )
        first = self._of(node.inputs[0]).dims[:-2]
        lead = self._lead(first, depth, node.inputs[0].shape)
        dims = (
            *lead,
            (Atom(length, COLUMN),) if length > 1 else (),
            (Atom(depth, CHANNEL),) if depth > 1 else (),
        )
        return Layout(y, (0, 0, 0), dims)

    def _lead(self, dims: tuple, depth: int, shape: tuple[int, ...]) -> tuple:
        """Where the leading dimensions of an attention's result lie."""
        kinds = self._kinds(shape)
        steps = {'head': depth, 'row': 1}
        lead = []
        for size, kind in reversed(list(zip(shape[:-2], kinds))):
            vector = (
                (steps[kind], 0, 0)
                if kind == 'head'
                else (
                    0,
                    steps[kind],
                    0,
                )
            )
            lead.insert(0, (Atom(size, vector),) if size > 1 else ())
            steps[kind] *= size
        return tuple(lead)

    def _kinds(self, shape: tuple[int, ...]) -> list[str]:
        """What the leading dimensions of (..., heads, L, d) are."""
        lead = len(shape) - 2
        return ['row'] * (lead - 1) + ['head'] if lead > 1 else ['head'] * lead

    def _heads(self, node: Node) -> tuple[int, int, int]:
        """A value (heads d, B, L), and the numbers of heads and of rows."""
        layout, shape = self._of(node), node.shape
        kinds = self._kinds(shape)
        depth, length = shape[-1], shape[-2]
        heads = math.prod(s for s, k in zip(shape, kinds) if k == 'head')
        rows = math.prod(s for s, k in zip(shape, kinds) if k == 'row')
        wanted = (
            *self._lead((), depth, shape),
            (Atom(length, COLUMN),) if length > 1 else (),
            (Atom(depth, CHANNEL),) if depth > 1 else (),
        )
        box = (heads * depth, rows, length)
        if tuple(tuple(merged(d)) for d in layout.dims) != wanted:
            target = Layout(self.out.storage(*box), (0, 0, 0), wanted)
            self._move(layout, target)
            layout = target
        return self.out.view(layout.value, layout.start, box), heads, rows

    def _scores(self, node: Node, heads: int, rows: int) -> int:
        """A constant that is added to the scores, as (heads, B, L M)."""
        bias = node.inputs[3]
        if bias.op is not Op.CONSTANT:
            raise _NotThis('attention with a bias of the image')
        length = node.shape[-2]
        keys = node.inputs[1].shape[-2]
        numbers = bias.tensor.float()
        shape = (*node.shape[:-2], length, keys)
        wide = (1,) * (len(shape) - numbers.dim()) + tuple(numbers.shape)
        numbers = numbers.reshape(wide)
        lead = wide[:-2]
        kinds = self._kinds(node.shape)
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
        return self.out.constant(numbers.transpose(0, 1).contiguous())

    def _resize(self, node: Node) -> Layout:
        x = self._map(node.inputs[0])
        y = self._usual(node.shape)
        listed = self._writes(node, y)
        self.out.add(
            f.Resize(
                x,
                y.value,
                listed,
                int(node.bilinear),
                int(node.corners),
                tuple(map(float, node.scale)),
            )
        )
        return y

    def _topk(self, node: Node) -> Layout:
        x, y = self._elementwise(node, 1)
        self.out.add(f.TopK(x, y.value, node.k, int(node.ones)))
        return y

    def _softmax(self, node: Node) -> Layout:
        if not hasattr(f, 'Softmax'):
            raise _NotThis('softmax')
        x, y = self._elementwise(node, node.dim)
        self.out.add(f.Softmax(x, y.value))
        return y

    def _decision(self, node: Node) -> Layout:
        x, _, layout = self._channels_at(node.inputs[0], 1)
        channels = [
            channels
            for channels in self._lists_of(node)
            if channels not in self.out.lists
        ]
        for found in channels:
            self.out.lists[found] = self.out.new_set(found.channels)
            record, self.out.record = self.out.record, False
            self.out.add(f.List(x, self.out.lists[found]))
            self.out.record = record
        return layout

    def _lists_of(self, node: Node) -> list[ChannelList]:
        found: list[ChannelList] = []
        stack = [x.reads for x in self.graph.nodes]
        stack += [x.writes for x in self.graph.nodes]
        while stack:
            channels = stack.pop()
            if channels is ALL or channels in found:
                continue
            stack += [source for source, *_ in channels.segments]
            if channels.decision is node:
                found.append(channels)
        return found

    def _clear(self, node: Node) -> Layout:
        x, box, layout = self._channels_at(node.inputs[0], node.channel_dim)
        y = Layout(self.out.storage(*box), (0, 0, 0), layout.dims)
        self._move(Layout(x, (0, 0, 0), layout.dims), y, True, node.reads)
        return y

    def _mask(self, node: Node) -> Layout:
        raise CannotLower('masks are no ops; list the channels first')


class _NotThis(Exception):
    """The runtime has no op for a node; torch computes it."""


class _Function:
    """A node that torch computes, on arrays of its numbers in order."""

    def __init__(self, node: Node) -> None:
        from fgc_mm.deploy.graph.interpreter import RUN, activate

        self._run, self._activate, self._node = RUN[node.op], activate, node

    def __call__(self, xs: list[Any], ys: list[Any]) -> None:
        node = self._node
        tensors = [
            torch.from_numpy(x.copy()).reshape(value.shape)
            for x, value in zip(xs, node.inputs)
        ]
        y = self._run(node, *tensors)
        if node.op not in (Op.UNARY, Op.CALL):
            y = self._activate(y, node.act)
        ys[0][...] = y.reshape(ys[0].shape).numpy()


def _sorted(atoms: list[Atom], box: tuple[int, int, int]) -> bool:
    """Whether these factors, slowest first, are a map's own order."""
    _, height, width = box
    strides = [
        a.step[0] * height * width + a.step[1] * width + a.step[2]
        for a in atoms
    ]
    wanted, step = [], 1
    for atom in reversed(atoms):
        wanted.insert(0, step)
        step *= atom.size
    return strides == wanted


def _axis(atom: Atom) -> int:
    return next(n for n, s in enumerate(atom.step) if s)


def _free_dim(shape: tuple[int, ...], dims: tuple[int, ...]) -> int:
    return next(d for d in range(len(shape)) if d not in dims)


def _runs(numbers: list[int]) -> list[tuple[int, int, int]]:
    """(first, count, step) of evenly spaced numbers, one after the other."""
    runs, at = [], 0
    while at < len(numbers):
        step = numbers[at + 1] - numbers[at] if at + 1 < len(numbers) else 1
        end = at + 1
        while end < len(numbers) and numbers[end] - numbers[end - 1] == step:
            end += 1
        runs.append((numbers[at], end - at, step))
        at = end
    return runs


def _run_of(
    layout: Layout, dim: int, first: int, count: int, step: int
) -> Layout:
    if count == 1:
        step = 1
    return layout.sliced(dim, first, count, step)


RULES: dict[Op, Callable[[Lowering, Node], Layout]] = {
    Op.IMAGE: Lowering._image,
    Op.CONV: Lowering._conv,
    Op.LINEAR: Lowering._linear,
    Op.AFFINE: Lowering._affine,
    Op.LAYER_NORM: Lowering._layer_norm,
    Op.GROUP_NORM: Lowering._group_norm,
    Op.UNARY: Lowering._unary,
    Op.BINARY: Lowering._binary,
    Op.POOL: Lowering._pool,
    Op.MEAN: Lowering._mean,
    Op.CONCAT: Lowering._concat,
    Op.SLICE: Lowering._slice,
    Op.SELECT: Lowering._select,
    Op.PAD: Lowering._pad,
    Op.PERMUTE: Lowering._permute,
    Op.RESHAPE: Lowering._reshape,
    Op.EXPAND: Lowering._expand,
    Op.FLIP: Lowering._flip,
    Op.TAKE: Lowering._take,
    Op.ATTENTION: Lowering._attention,
    Op.SOFTMAX: Lowering._softmax,
    Op.RESIZE: Lowering._resize,
    Op.TOPK: Lowering._topk,
    Op.DECISION: Lowering._decision,
    Op.CLEAR: Lowering._clear,
    Op.MASK: Lowering._mask,
}
