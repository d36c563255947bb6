"""Layouts of a graph's tensors in the values of a program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fgc_mm.deploy.graph.emit import Emitter, NotSupported
from fgc_mm.deploy.graph.ir import ALL, Node, Op
from fgc_mm.deploy.graph.value_layout import (
    DEFAULT_AXES,
    Box,
    Step,
    ValueLayout,
    dim_of,
    extents,
    flat_axes,
    merged,
    refined,
    triple,
)
from fgc_mm.runtime import format as f

CHANNEL = (1, 0, 0)


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
        steps = [a.step for a in atoms]
        if box is not None and steps == sorted(steps, reverse=True):
            return self.out.view(layout.value, layout.start, box)
        return self.out.move(layout, self.new_contiguous(node.shape)).value

    def copy_to_new(self, layout: ValueLayout) -> ValueLayout:
        """A copy in new memory, with the default layout of its rank."""
        shape = layout.shape
        known = len(shape) in DEFAULT_AXES and shape[0] == 1
        axes = None if known else flat_axes(shape)
        return self.out.move(layout, self.new(shape, axes))

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
            layout = self.out.move(layout, self.new_like(wanted))
        return self.out.view(layout.value, layout.start, wanted.box)

    def channels_at(self, node: Node, dim: int) -> ValueLayout:
        """A tensor as a map whose channels are one of its dimensions.

        Returns:
            A layout that fills its value.
        """
        layout = self.layout_of(node)
        others = [
            a for d, atoms in enumerate(layout.dims) if d != dim for a in atoms
        ]
        fits = (
            layout.dims[dim] == dim_of(node.shape[dim], CHANNEL)
            and not any(a.step[0] for a in others)
            and extents(layout.atoms()) is not None
        )
        if not fits:
            rank = len(node.shape)
            axes: Sequence[int] = [0 if d == dim else 2 for d in range(rank)]
            if rank == 4 and node.shape[0] == 1 and dim == 1:
                axes = DEFAULT_AXES[4]
            layout = self.out.move(layout, self.new(node.shape, axes))
        return self.filling(layout)

    def filling(self, layout: ValueLayout) -> ValueLayout:
        """The layout in a value that contains nothing else."""
        view = self.out.view(layout.value, layout.start, layout.box)
        return ValueLayout(view, layout.dims)

    def whole(self, node: Node) -> ValueLayout:
        """The layout of a tensor that fills a box; copied if it does not."""
        layout = self.layout_of(node)
        if extents(layout.atoms()) is None:
            layout = self.copy_to_new(layout)
            if not self.out.record:  # a copy for records may not be computed
                self.layouts[node] = layout
        return layout

    def new_like(self, layout: ValueLayout) -> ValueLayout:
        """New memory with the layout of a tensor that fills a box."""
        return ValueLayout(self.out.storage(*layout.box), layout.dims)

    def writes(self, node: Node, layout: ValueLayout) -> int:
        """The channel list of an op; all if they are not its channels."""
        if node.writes is ALL:
            return f.ALL
        count = node.writes.channels
        if layout.dims[node.channel_dim] != dim_of(count, CHANNEL):
            return f.ALL
        if self.out.program.values[layout.value].channels != count:
            return f.ALL  # several images
        return self.out.list_index(node.writes)

    def broadcast_to(self, node: Node, like: ValueLayout) -> int:
        """The value of a tensor in the layout of another one.

        Each axis may also be broadcast, with size 1.
        """
        layout = self.layout_of(node)
        missing = len(like.dims) - len(layout.dims)
        layout = replace(layout, dims=((),) * missing + layout.dims)
        found = _broadcast_box(layout, like)
        if found is None:
            layout = self._copy_like(node, layout, like)
            found = _broadcast_box(layout, like)
        if found is None:
            raise NotSupported('a sum of tensors with different layouts')
        return self.out.view(layout.value, layout.start, found)

    def _copy_like(
        self, node: Node, layout: ValueLayout, like: ValueLayout
    ) -> ValueLayout:
        """A copy in the layout of another tensor.

        An axis of the map has size 1 if the tensor has none of its dimensions,
        and all of them if it has some.
        """
        pairs = [*zip(layout.dims, like.dims)]
        used = {axis_of(a.step) for mine, dim in pairs if mine for a in dim}
        dims = [
            tuple(a for a in dim if axis_of(a.step) in used)
            for _, dim in pairs
        ]
        target = ValueLayout(f.NONE, tuple(dims))
        if node.op is not Op.CONSTANT:
            return self.out.move(
                layout.expanded(target.shape), self.new_like(target)
            )
        numbers = node.tensor.float().reshape(layout.shape)
        atoms = target.atoms()
        order = sorted(
            range(len(atoms)), key=lambda n: atoms[n].step, reverse=True
        )
        numbers = numbers.expand(target.shape)
        numbers = numbers.reshape([a.size for a in atoms]).permute(order)
        value = self.out.constant(numbers.reshape(target.box))
        return replace(target, value=value)


def _broadcast_box(layout: ValueLayout, like: ValueLayout) -> Box | None:
    """(C, H, W), 1 where it is broadcast, if the layouts agree."""
    same, broadcast = [True] * 3, [True] * 3  # along each axis
    for mine, other in zip(layout.expanded(like.shape).dims, like.dims):
        pairs = refined(mine, other)
        if pairs is None:
            return None
        for _, step, wanted in pairs:
            axis = axis_of(wanted)
            same[axis] &= step == wanted
            broadcast[axis] &= not any(step)
    if not all(a or b for a, b in zip(same, broadcast)):
        return None
    return triple(n if own else 1 for n, own in zip(like.box, same))


def axis_of(step: Step) -> int:
    """The axis along which a step that is not zero runs."""
    return next(n for n, s in enumerate(step) if s)
