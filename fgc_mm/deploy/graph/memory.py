"""Memory planning: strides and padding of values, offsets in the arena."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fgc_mm.runtime import format as f

if TYPE_CHECKING:
    from fgc_mm.deploy.graph.emit import Emitter, Storage
    from fgc_mm.deploy.graph.value_layout import Step

LINE = 16  # float32 per cache line
MAX_PADDING = 4  # maximum width of the zero padding


def plan_memory(emitter: Emitter) -> None:
    """Assign offset and strides to every value."""
    _find_pads(emitter)
    sizes = [_set_strides(storage) for storage in emitter.storages]
    offsets, floats = offsets_of(sizes, _live_ranges(emitter))
    for memory, offset in zip(emitter.storages, offsets):
        head = memory.pad * (memory.value.row_step + 1)
        memory.value.offset = offset + head
    for value, view in zip(emitter.program.values, emitter.views):
        if view is not None:
            storage, start = view
            place(value, emitter.storages[storage].value, start)
    emitter.program.arena = floats + f.SLACK


def place(part: f.Value, whole: f.Value, start: Step) -> None:
    """Set the memory of a part of a value that begins at ``start``."""
    c, h, w = start
    part.base = whole.base
    part.channel_step, part.row_step = whole.channel_step, whole.row_step
    part.offset = whole.offset + c * part.channel_step + h * part.row_step + w


def _find_pads(emitter: Emitter) -> None:
    """Set the zero padding for inputs of convs with stride 1."""
    for op in emitter.program.ops:
        if not isinstance(op, f.Conv) or tuple(op.stride) != (1, 1):
            continue
        view = emitter.views[op.x]
        if view is None:
            continue
        storage = emitter.storages[view[0]]
        whole = emitter.program.values[op.x].shape == storage.value.shape
        pad = max(op.padding)
        if whole and not storage.moved and pad <= MAX_PADDING:
            storage.pad = max(storage.pad, pad)


def _set_strides(storage: Storage) -> int:
    """Set the strides of a storage; return its size in float32."""
    value, pad = storage.value, storage.pad
    value.pad, value.row_step = pad, value.width + pad
    if value.height * value.width == 1 and not pad:
        value.channel_step = 1  # a vector
        return -(-value.channels // LINE) * LINE
    rows = (value.height + 2 * pad) * value.row_step
    floats = -(-(rows + 2 * pad) // LINE) * LINE
    if floats % 1024 == 0:  # avoid conflicts of channels in the cache
        floats += LINE
    value.channel_step = floats
    return value.channels * floats


def _live_ranges(emitter: Emitter) -> list[tuple[int, int]]:
    """The first and the last op that use every storage."""
    program = emitter.program
    used: list[list[int]] = [[] for _ in emitter.storages]
    steps = [*map(_values_of, program.ops), program.outputs]
    for at, values in enumerate(steps):
        for value in values:
            view = emitter.views[value]
            if view is not None:
                used[view[0]].append(at)
    return [(min(at), max(at)) if at else (0, 0) for at in used]


def _values_of(op: f.Op) -> list[int]:
    """The values that an op reads and writes."""
    names = ('x', 'y', 'add', 'x1', 'x2', 'q', 'k', 'v')
    found = [getattr(op, name, f.NONE) for name in names]
    if isinstance(op, f.Attention):
        found.append(op.bias)
    if isinstance(op, f.Call):
        found += [*op.xs, *op.ys]
    return [value for value in found if value != f.NONE]


def offsets_of(
    sizes: Sequence[int], live_ranges: Sequence[tuple[int, int]]
) -> tuple[list[int], int]:
    """Offsets such that no two values overlap while both are live.

    First fit, in order of first use: memory that was written recently, and
    is still in the cache, is reused first.

    Args:
        sizes: Size of every value.
        live_ranges: The first and the last step that needs a value, both
            included.

    Returns:
        The offset of every value, and the total size.
    """
    offsets = [0] * len(sizes)
    order = sorted(range(len(sizes)), key=lambda value: live_ranges[value][0])
    placed: list[int] = []
    for value in order:
        birth = live_ranges[value][0]
        taken = sorted(
            (offsets[other], offsets[other] + sizes[other])
            for other in placed
            if live_ranges[other][1] >= birth
        )
        offset = 0
        for begin, end in taken:
            if begin - offset >= sizes[value]:
                break
            offset = max(offset, end)
        offsets[value] = offset
        placed.append(value)
    whole = max((o + s for o, s in zip(offsets, sizes)), default=0)
    return offsets, whole
