"""Layouts of a graph's tensors in the values of a program."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from fgc_mm.deploy.graph.emit import Emitter, NotSupported
from fgc_mm.deploy.graph.ir import ALL, Node, Op
from fgc_mm.deploy.graph.value_layout import (
    DEFAULT_AXES,
    Box,
    DimFactor,
    ValueLayout,
    extents,
    flat_axes,
    merged,
    refined,
    triple,
)
from fgc_mm.runtime import format as f

CHANNEL = (1, 0, 0)
COLUMN = (0, 0, 1)


class LayoutTracker:
    """Tracks the layouts of tensors; copies where another is needed.

    Attributes:
        out: Builds the program.
        layouts: Layouts of the tensors computed so far.
    """

    def __init__(self) -> None:
        self.out = Emitter()
        self.layouts: dict[Node, ValueLayout] = {}

    def layout_of(self, node: Node) -> ValueLayout:
        if node.op is not Op.CONSTANT:
            return self.layouts[node]
        value = self.out.constant(node.tensor.float().reshape(1, 1, -1))
        return ValueLayout.packed(value, node.shape, flat_axes(node.shape))

    def new(
        self, shape: Sequence[int], axes: Sequence[int] | None = None
    ) -> ValueLayout:
        """New memory for a tensor, as of :meth:`ValueLayout.packed`."""
        return self.new_like(ValueLayout.packed(f.NONE, shape, axes))

    def new_contiguous(self, shape: tuple[int, ...]) -> ValueLayout:
        """New memory that is contiguous for the tensor."""
        if len(shape) in (2, 4) and shape[0] == 1:
            return self.new(shape)
        return self.new(shape, flat_axes(shape))

    def contiguous(self, node: Node) -> int:
        """A value in which the tensor is contiguous; copied if needed."""
        layout = self.layout_of(node)
        atoms = merged(layout.atoms())
        box = extents(atoms)
        if box is not None and _sorted(atoms, box):
            return self.out.view(layout.value, layout.start, box)
        target = self.new_contiguous(node.shape)
        self.out.move(layout, target)
        return target.value

    def copy_to_new(
        self, layout: ValueLayout, shape: tuple[int, ...]
    ) -> ValueLayout:
        """A copy in new memory, with the default layout of its rank."""
        known = len(shape) in DEFAULT_AXES and shape[0] == 1
        target = self.new(shape, None if known else flat_axes(shape))
        self.out.move(layout, target)
        return target

    def map(self, node: Node) -> int:
        """A value (N C, H, W) of a tensor (N, C, H, W)."""
        rank = len(node.shape)
        if rank != 4:
            raise NotSupported(f'{node.op.value} of {rank} dimensions')
        return self.along_axes(node, DEFAULT_AXES[rank])

    def along_axes(self, node: Node, axes: Sequence[int]) -> int:
        """A value with a tensor along these axes; copied if needed."""
        layout = self.layout_of(node)
        wanted = ValueLayout.packed(f.NONE, node.shape, axes)
        if tuple(tuple(merged(d)) for d in layout.dims) != wanted.dims:
            target = self.new_like(wanted)
            self.out.move(layout, target)
            layout = target
        return self.out.view(layout.value, layout.start, wanted.box)

    def channels_at(self, node: Node, dim: int) -> ValueLayout:
        """A tensor as a map whose channels are one of its dimensions.

        Returns:
            A layout that fills its value.
        """
        layout = self.layout_of(node)
        if self._box_at(layout, dim) is None:
            layout = self._with_channels(node, dim)
        return self.filling(layout)

    def filling(self, layout: ValueLayout) -> ValueLayout:
        """The layout in a value that contains nothing else."""
        view = self.out.view(layout.value, layout.start, layout.box)
        return ValueLayout(view, layout.dims)

    def whole(self, node: Node) -> ValueLayout:
        """The layout of a tensor that fills a box; copied if it does not."""
        layout = self.layout_of(node)
        if extents(layout.atoms()) is None:
            layout = self.copy_to_new(layout, node.shape)
            if not self.out.record:  # a copy for records may not be computed
                self.layouts[node] = layout
        return layout

    def new_like(self, layout: ValueLayout) -> ValueLayout:
        """New memory with the layout of a tensor that fills a box."""
        return ValueLayout(self.out.storage(*layout.box), layout.dims)

    def _box_at(self, layout: ValueLayout, dim: int) -> Box | None:
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

    def _with_channels(self, node: Node, dim: int) -> ValueLayout:
        """A copy whose channels are one of the tensor's dimensions."""
        axes: Sequence[int] = [
            0 if d == dim else 2 for d in range(len(node.shape))
        ]
        if len(axes) == 4 and node.shape[0] == 1 and dim == 1:
            axes = DEFAULT_AXES[4]
        target = self.new(node.shape, axes)
        self.out.move(self.layout_of(node), target)
        return target

    def writes(self, node: Node, layout: ValueLayout) -> int:
        """The channel list of an op; all if they are not its channels."""
        if node.writes is ALL:
            return f.ALL
        atoms = layout.dims[node.channel_dim]
        if layout.start[0] or len(atoms) != 1 or atoms[0].step != CHANNEL:
            return f.ALL
        channels = self.out.program.values[layout.value].channels
        if channels != node.writes.channels:  # several images
            return f.ALL
        return self.out.list_index(node.writes)

    def broadcast_to(self, node: Node, like: ValueLayout) -> int:
        """The value of a tensor in the layout of another one.

        Each axis may also be broadcast, with size 1.
        """
        layout = self.layout_of(node)
        missing = len(like.dims) - len(layout.dims)
        layout = replace(layout, dims=((),) * missing + layout.dims)
        found = self._broadcast_box(layout, like)
        if found is None:
            shape = (1,) * missing + node.shape
            layout = self._copy_like(node, layout, shape, like)
            found = self._broadcast_box(layout, like)
        if found is None:
            raise NotSupported('a sum of tensors with different layouts')
        return self.out.view(layout.value, layout.start, found)

    def _broadcast_box(
        self, layout: ValueLayout, like: ValueLayout
    ) -> Box | None:
        """(C, H, W), 1 where it is broadcast, if the layouts agree."""
        same, broadcast = [True] * 3, [True] * 3  # along each axis
        for mine, other in zip(layout.dims, like.dims):
            if mine:
                pairs = refined(mine, other)
            else:  # a dimension of size one
                pairs = [(a.size, (0, 0, 0), a.step) for a in other]
            if pairs is None:
                return None
            for _, step, wanted in pairs:
                for axis, along in enumerate(wanted):
                    if along:
                        same[axis] &= step == wanted
                        broadcast[axis] &= not any(step)
        if not all(map(operator.or_, same, broadcast)):
            return None
        return triple(n if own else 1 for n, own in zip(like.box, same))

    def _copy_like(
        self,
        node: Node,
        layout: ValueLayout,
        shape: tuple[int, ...],
        like: ValueLayout,
    ) -> ValueLayout:
        """A copy in the layout of another tensor.

        An axis of the map has size 1 if the tensor has none of its dimensions.
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
        # an axis of which the tensor has some dimensions gets all of them
        dims = [
            dim or tuple(a for a in other if axis_of(a) in used)
            for dim, other in zip(dims, like.dims)
        ]
        wide = tuple(math.prod(a.size for a in dim) for dim in dims)
        target = ValueLayout(f.NONE, tuple(dims))
        if node.op is Op.CONSTANT:
            numbers = node.tensor.float().reshape(shape).expand(wide)
            return replace(target, value=self._constant_at(numbers, target))
        target = replace(target, value=self.out.storage(*target.box))
        self.out.move(layout.expanded(wide), target)
        return target

    def _constant_at(self, numbers: Tensor, like: ValueLayout) -> int:
        """A value with these numbers in a layout."""
        atoms = like.atoms()
        flat = numbers.reshape([a.size for a in atoms] or [1])
        order = sorted(
            range(len(atoms)),
            key=lambda n: (-axis_of(atoms[n]), max(atoms[n].step)),
            reverse=True,
        )
        if atoms:
            flat = flat.permute(order)
        return self.out.constant(flat.reshape(like.box))


def _sorted(atoms: list[DimFactor], box: Box) -> bool:
    """Whether these factors, slowest first, are contiguous in the map."""
    _, height, width = box
    strides = [
        a.step[0] * height * width + a.step[1] * width + a.step[2]
        for a in atoms
    ]
    wanted: list[int] = []
    step = 1
    for atom in reversed(atoms):
        wanted.insert(0, step)
        step *= atom.size
    return strides == wanted


def axis_of(atom: DimFactor) -> int:
    return next(n for n, s in enumerate(atom.step) if s)
