"""Building a program: values, weights, channel lists and operations."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from fgc_mm.deploy.graph import memory
from fgc_mm.deploy.graph.ir import ALL, ChannelList, Node
from fgc_mm.deploy.graph.value_layout import (
    Box,
    Step,
    ValueLayout,
    refined,
    triple,
)
from fgc_mm.runtime import format as f

MAX_MOVE_DIMS = 8  # maximum number of dimensions of a move


class NotSupported(Exception):
    """The runtime has no op for a node; torch computes it."""


@dataclass
class Storage:
    """Memory of some values.

    Attributes:
        value: Index of the value that covers all of it.
        moved: Whether a move writes it, or an operation that writes only some
            channels; these do not write the padding.
        pad: Width of the zero padding around every channel.
    """

    value: f.Value
    moved: bool = False
    pad: int = 0


# a value as a part of a storage: its index, and the first coordinates in it
View = tuple[int, Step]


@dataclass
class Emitter:
    """Builds a program operation by operation."""

    program: f.Program = field(default_factory=f.Program)
    storages: list[Storage] = field(default_factory=list)
    views: list[View | None] = field(default_factory=list)  # one per value
    lists: dict[ChannelList, int] = field(default_factory=dict)
    record: bool = False  # whether emitted operations serve records only
    name: str = ''
    node: Any = None  # the graph's node that emitted operations compute
    nodes: list[Node] = field(default_factory=list)  # one per operation
    _weights: list[np.ndarray] = field(default_factory=list)
    _count: int = 0
    _known: dict[tuple, int] = field(default_factory=dict)

    def storage(self, channels: int, height: int, width: int) -> int:
        """Add a value with memory of its own."""
        value = f.Value(channels, height, width)
        self.storages.append(Storage(value))
        return self._value(value, (len(self.storages) - 1, (0, 0, 0)))

    def _value(self, value: f.Value, view: View | None) -> int:
        self.program.values.append(value)
        self.views.append(view)
        return len(self.program.values) - 1

    def image(self, channels: int, height: int, width: int) -> int:
        return self._fixed((channels, height, width), f.Base.IMAGE, 0)

    def constant(self, tensor: Tensor) -> int:
        """Add a constant (C, H, W) as a value."""
        offset = self.weights(tensor)
        return self._fixed(triple(tensor.shape), f.Base.WEIGHTS, offset)

    def _fixed(self, box: Box, base: f.Base, offset: int) -> int:
        """Add a value that is contiguous in the image or the weights."""
        _, height, width = box
        steps = (height * width, width)
        return self._value(f.Value(*box, base, offset, *steps), None)

    def view(self, value: int, start: Step, box: Box) -> int:
        """A part of a value, as a value."""
        whole = self.program.values[value]
        if start == (0, 0, 0) and box == whole.shape:
            return value
        key = (value, start, box)
        if key not in self._known:
            self._known[key] = self._view(value, start, box)
        return self._known[key]

    def _view(self, value: int, start: Step, box: Box) -> int:
        whole, view = self.program.values[value], self.views[value]
        if whole.base == f.Base.IMAGE:  # no other value may be a part of it
            copy, to, sizes = self.storage(*box), (0, 0, 0), list(box)
            steps = [(1, 0, 0), (0, 1, 0), (0, 0, 1)]
            move = f.Move(
                value, copy, f.ALL, 0, start, to, sizes, steps, steps
            )
            self.add(move, record=False)
            return copy
        part = f.Value(*box)
        if view is None:  # constants have fixed strides
            memory.place(part, whole, start)
            return self._value(part, None)
        storage, begin = view
        begin = triple(a + b for a, b in zip(begin, start))
        return self._value(part, (storage, begin))

    def weights(self, tensor: Tensor) -> int:
        """Offset of a tensor among the weights, deduplicated."""
        numbers = np.ascontiguousarray(tensor.detach().float().numpy())
        key = (numbers.shape, hash(numbers.tobytes()))
        if key not in self._known:
            # weight vectors are aligned to cache lines
            self._known[key] = self._count
            numbers = np.pad(numbers.ravel(), (0, -numbers.size % 16))
            self._weights.append(numbers)
            self._count += numbers.size
        return self._known[key]

    def optional(self, tensor: Tensor | None) -> int:
        return f.NONE if tensor is None else self.weights(tensor)

    def list_index(self, channels: ChannelList | None) -> int:
        """The index of a channel list; emits operations for a new one."""
        if channels is ALL:
            return f.ALL
        if channels not in self.lists:
            if channels.decision is not None:
                raise LookupError('a list before its decision')
            segments = [
                (self.list_index(source), repeat, list(numbers))
                for source, repeat, numbers in channels.segments
            ]
            self.lists[channels] = self.new_list(channels.channels)
            self.add(f.Join(self.lists[channels], segments), record=False)
        return self.lists[channels]

    def new_list(self, channels: int) -> int:
        self.program.sets.append(channels)
        return len(self.program.sets) - 1

    def add(self, op: f.Op, record: bool | None = None) -> None:
        op.records_only = self.record if record is None else record
        self.program.ops.append(op)
        self.program.names.append(self.name)
        self.nodes.append(self.node)
        y = getattr(op, 'y', f.NONE)
        view = None if y == f.NONE else self.views[y]
        if view is None:
            return
        storage = self.storages[view[0]]
        part = self.program.values[y].channels != storage.value.channels
        if part or (isinstance(op, f.Move) and not op.zero):
            storage.moved = True

    def move(
        self,
        x: ValueLayout,
        y: ValueLayout,
        zero: bool = False,
        channels: ChannelList | None = ALL,
    ) -> ValueLayout:
        """Copy a tensor to the layout of another with the same shape.

        Returns:
            The layout of the copy.

        Raises:
            NotSupported: One move cannot do it.
        """
        listed = self.list_index(channels)
        dims: list[tuple[int, Step, Step]] = []
        for dim_x, dim_y in zip(x.dims, y.dims):
            pairs = refined(dim_x, dim_y)
            if pairs is None:
                raise NotSupported('a move of too many dimensions')
            dims += pairs
        if len(dims) > MAX_MOVE_DIMS:
            raise NotSupported('a move of too many dimensions')
        # the smallest destination stride innermost
        dims.sort(key=lambda dim: (dim[2], dim[0]), reverse=True)
        self.add(
            f.Move(
                x.value,
                y.value,
                listed,
                int(zero),
                x.start,
                y.start,
                sizes=[size for size, _, _ in dims],
                from_steps=[step for _, step, _ in dims],
                to_steps=[step for _, _, step in dims],
            )
        )
        return y

    def finish(self, outputs: list[int], records: int) -> f.Program:
        """The program, with memory planned."""
        program = self.program
        program.outputs, program.records = outputs, records
        program.weights = np.concatenate([program.weights, *self._weights])
        memory.plan_memory(self)
        return program
