"""Groups of neighbouring channels that share one decision."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fgc_mm.errors import FGCError
from fgc_mm.functional.on_device import kept_on_device

# Channels of each decision; None: one decision per channel.
GroupSizes = tuple[int, ...] | None


def group_sizes(channels: int, group: int) -> GroupSizes:
    """Number of channels that each decision opens.

    Args:
        channels: Number of channels of the site (C).
        group: Channels that share a decision; the last decision has fewer
            if C is not a multiple of ``group``.

    Returns:
        ``ceil(C / group)`` numbers, or ``None`` if ``group`` is 1.

    Raises:
        FGCError: ``group`` is not a whole number of at least 1.
    """
    if isinstance(group, bool) or not isinstance(group, int) or group < 1:
        raise FGCError(
            f'group={group!r} of a gate is not a number of neighbouring '
            'channels; give a whole number of at least 1, such as 8.'
        )
    if group == 1:
        return None
    starts = range(0, channels, group)
    return tuple(min(group, channels - start) for start in starts)


def spread_groups(values: Tensor, sizes: GroupSizes) -> Tensor:
    """Repeat every decision's value (N, G) for its channels; (N, C)."""
    if sizes is None:
        return values
    size = sizes[0]
    if {*sizes[:-1]} <= {size} and sizes[-1] <= size:
        wide = values.unsqueeze(2).expand(-1, -1, size).flatten(1)
        return wide[:, : sum(sizes)]
    return values[:, _decision_of(sizes, values.device)]


def sum_groups(values: Tensor, sizes: GroupSizes) -> Tensor:
    """Sum (N, C) over the channels of every decision; (N, G)."""
    if sizes is None:
        return values
    sums = values.new_zeros(values.shape[0], len(sizes))
    return sums.index_add(1, _decision_of(sizes, values.device), values)


def _decision_of(sizes: Sequence[int], device: torch.device) -> Tensor:
    """The index of every channel's decision; (C,)."""
    decisions = [i for i, size in enumerate(sizes) for _ in range(size)]
    return kept_on_device(tuple(decisions), device)
