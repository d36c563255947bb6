"""Offsets of values in one memory arena."""

from __future__ import annotations

from collections.abc import Sequence


def offsets_of(
    sizes: Sequence[int], live_ranges: Sequence[tuple[int, int]]
) -> tuple[list[int], int]:
    """Offsets such that no two values overlap while both are live.

    First fit, in order of first use: memory that was written recently, and
    is still in the cache, is reused first.

    Args:
        sizes: Of every value.
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
