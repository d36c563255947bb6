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


def short_class(name: str, longest: int = 11) -> str:
    """A class's name that fits below a picture; its beginning says most."""
    return name if len(name) <= longest else f'{name[: longest - 1]}…'


def spread_apart(
    points: np.ndarray, width: float, height: float
) -> np.ndarray:
    """Places for labels: from below, each moves up until it is free.

    Args:
        points: (n, 2) wanted places.
        width: Of a label.
        height: Of a label.

    Returns:
        (n, 2) places, no two of which overlap.
    """
    placed: list[np.ndarray] = []
    places = np.array(points, dtype=np.float64)
    for number in np.argsort(places[:, 1], kind='stable'):
        place = places[number]
        for other in sorted(placed, key=lambda label: label[1]):
            apart = np.abs(other - place)
            if apart[0] < width and apart[1] < height:
                place[1] = other[1] + height
        placed.append(place)
    return places


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
            number = value / size
            digits = 2 if number < 10 else 1 if number < 100 else 0
            return f'{number:.{digits}f} {letter}'
    return f'{value:.0f}'
