"""Figures with pictures of single images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ...figure_style import PAGE_WIDTH, in_style, new_figure
from ..measure import Measurement
from .panels import millions, short, show_picture

Picture = Callable[[int], np.ndarray]


@in_style()
def draw_retrieval(found: Measurement, picture: Picture) -> Figure:
    """A row per query: the query, then the images with the nearest gates."""
    queries, near = found.retrieval.queries, found.retrieval.found
    stored = found.stored
    rows, columns = near.shape
    size = PAGE_WIDTH / (columns + 1.4)
    figure = new_figure(PAGE_WIDTH, rows * (size + 0.14) + 0.25)
    axes = figure.subplots(
        rows, columns + 2, squeeze=False,
        width_ratios=[1, 0.25, *[1] * columns],
    )  # fmt: skip
    labels, names = np.asarray(stored.labels), stored.classes
    for row, query in enumerate(queries):
        axes[row, 1].set_visible(False)
        show_picture(axes[row, 0], picture(stored.indices[query]), None)
        axes[row, 0].set_ylabel(short(names[labels[query]], 12), fontsize=7)
        for rank, index in enumerate(near[row]):
            axis = axes[row, rank + 2]
            same = bool(labels[index] == labels[query])
            show_picture(axis, picture(stored.indices[index]), same)
            axis.set_xlabel(
                f'{short(names[labels[index]], 11)} '
                f'{found.retrieval.similarity[row, rank]:.2f}',
                fontsize=6, labelpad=1.5,
            )  # fmt: skip
    axes[0, 0].set_title('query', fontsize=7.5)
    axes[0, 2].set_title('images with the nearest gates →', fontsize=7.5)
    return figure


@in_style()
def draw_extremes(found: Measurement, picture: Picture) -> Figure:
    """The cheapest images above, the dearest below."""
    groups = ('cheapest', found.cheapest), ('dearest', found.dearest)
    columns = len(found.cheapest)
    size = PAGE_WIDTH / max(columns, 6)
    figure = new_figure(PAGE_WIDTH, 2 * (size + 0.42))
    axes = figure.subplots(2, columns, squeeze=False)
    for row, (name, chosen) in zip(axes, groups):
        _row_of_images(row, found, chosen, picture)
        row[0].set_title(name)
    return figure


def _row_of_images(
    row: Sequence[Any],
    found: Measurement,
    chosen: Sequence[int],
    picture: Picture,
) -> None:
    stored = found.stored
    for axis, index in zip(row, chosen):
        label, said = stored.labels[index], stored.predictions[index]
        right = bool(label == said)
        show_picture(axis, picture(stored.indices[index]), right)
        text = short(stored.classes[label], 11)
        if not right:
            text += f' → {short(stored.classes[said], 9)}'
        axis.set_xlabel(f'{text}\n{millions(stored.macs[index])}',
                        fontsize=6, labelpad=1.5)  # fmt: skip
