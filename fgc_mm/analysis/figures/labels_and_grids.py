"""Helpers of several figures: shortened names, label positions, grids."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...figure_style import literal_text

LONGEST = 22


def short(name: str, longest: int = LONGEST) -> str:
    """A name shortened to fit above a panel; its end is kept."""
    text = name if len(name) <= longest else f'…{name[1 - longest :]}'
    return literal_text(text)


def short_class(name: str, longest: int = 11) -> str:
    """A class name shortened to fit below a picture; its start is kept."""
    text = name if len(name) <= longest else f'{name[: longest - 1]}…'
    return literal_text(text)


def spread_apart(
    points: np.ndarray, width: float, height: float
) -> np.ndarray:
    """Move labels up, beginning with the lowest, until none overlap.

    Args:
        points: (n, 2) wanted positions.
        width: Width of a label.
        height: Height of a label.

    Returns:
        (n, 2) positions.
    """
    placed: list[np.ndarray] = []
    positions = np.array(points, dtype=np.float64)
    for number in np.argsort(positions[:, 1], kind='stable'):
        position = positions[number]
        for other in sorted(placed, key=lambda label: label[1]):
            distance = np.abs(other - position)
            if distance[0] < width and distance[1] < height:
                position[1] = other[1] + height
        placed.append(position)
    return positions


def grid_shape(count: int, most_columns: int) -> tuple[int, int]:
    """Rows and columns for a number of panels, rows about equally full."""
    rows = math.ceil(count / most_columns)
    return rows, math.ceil(count / rows)


def site_ticks(axes: Any, names: Sequence[str]) -> None:
    """Label the horizontal axis with site names, at most 16 of them."""
    step = max(1, math.ceil(len(names) / 16))
    ticks = range(0, len(names), step)
    axes.set_xticks(
        [*ticks], [short(names[t]) for t in ticks], rotation=40, ha='right',
        rotation_mode='anchor',
    )  # fmt: skip
    axes.set_xlim(-0.4, len(names) - 0.6)


def hide_unused(axes: np.ndarray, used: int) -> None:
    """Hide the unused panels of a grid."""
    for axis in axes.flat[used:]:
        axis.set_visible(False)


def millions(value: float) -> str:
    """MACs with a unit prefix (k, M, G)."""
    for size, letter in ((1e9, 'G'), (1e6, 'M'), (1e3, 'k')):
        if value >= size:
            number = value / size
            digits = 2 if number < 10 else 1 if number < 100 else 0
            return f'{number:.{digits}f} {letter}'
    return f'{value:.0f}'
