"""What several figures share: names that fit, and grids of panels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

LONGEST = 22


def short(name: str, longest: int = LONGEST) -> str:
    """A name that fits above a panel; its end says most."""
    return name if len(name) <= longest else f'…{name[1 - longest :]}'


def grid_shape(count: int, most_columns: int) -> tuple[int, int]:
    """Rows and columns for so many panels, rows about equally full."""
    rows = math.ceil(count / most_columns)
    return rows, math.ceil(count / rows)


def site_ticks(axes: Any, names: Sequence[str]) -> None:
    """Sites along the horizontal axis, a few of them named if many."""
    step = max(1, math.ceil(len(names) / 16))
    places = range(0, len(names), step)
    axes.set_xticks(
        [*places], [short(names[p]) for p in places], rotation=40, ha='right',
        rotation_mode='anchor',
    )  # fmt: skip
    axes.set_xlim(-0.4, len(names) - 0.6)


def hide_unused(axes: np.ndarray, used: int) -> None:
    """Empty places of a grid show nothing."""
    for axis in axes.flat[used:]:
        axis.set_visible(False)


def millions(value: float) -> str:
    """MACs as people say them."""
    for size, letter in ((1e9, 'G'), (1e6, 'M'), (1e3, 'k')):
        if value >= size:
            return f'{value / size:.2f} {letter}'
    return f'{value:.0f}'
