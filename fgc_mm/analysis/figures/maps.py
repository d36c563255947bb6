"""Embeddings coloured by class, and frequencies of channels by class."""

from collections.abc import Sequence
from typing import Any

import matplotlib.patheffects as effects
import numpy as np
from matplotlib.figure import Figure

from ...figure_style import (
    LIGHT,
    PAGE_WIDTH,
    in_style,
    new_figure,
    point_style,
)
from ..measurement import EMBEDDED, Embedding, Measurement
from .labels_and_grids import short, short_class, spread_apart

MOST_COLORED = 11  # classes with a colour and marker of their own
MOST_COLUMNS = 5
MANY = 1000  # points
LABEL = 0.17, 0.06  # size of a label relative to the map


@in_style()
def draw_embeddings(
    measured: Sequence[Measurement], site: str | None = None
) -> Figure:
    """Features above, gates below; a point per image, coloured by class.

    Args:
        measured: One checkpoint, whose shown sites are the columns; or
            several checkpoints, which are the columns.
        site: The site to show, for several checkpoints.
    """
    panels = [
        (found, embedding)
        for found in measured
        for embedding in found.embeddings
        if site is None or embedding.site == site
    ]
    methods = {embedding.method for _, embedding in panels}
    columns = len(panels) // len(EMBEDDED)
    width = min(columns, MOST_COLUMNS)
    blocks = -(-columns // width)
    figure = new_figure(PAGE_WIDTH, 2 * blocks * PAGE_WIDTH / max(width, 3))
    axes = figure.subplots(2 * blocks, width, squeeze=False)
    for axis in axes.flat:
        axis.set_visible(False)
    for number, (found, embedding) in enumerate(panels):
        column, row = divmod(number, len(EMBEDDED))
        block, column = divmod(column, width)
        axis = axes[block * len(EMBEDDED) + row, column]
        _map(axis, found, embedding)
        name = embedding.site if site is None else found.name
        axis.set_title(short(name, 30) if row == 0 else '')
        one_for_all = len(methods) == 1
        if column == 0:
            method = f', {embedding.method}' if one_for_all else ''
            axis.set_ylabel(f'{embedding.space}{method}')
        if not one_for_all:
            axis.set_xlabel(embedding.method)
    handles = axes[0, 0].get_legend_handles_labels()
    figure.legend(
        *handles, loc='outside lower center',
        markerscale=2 if len(measured[0].embedded) < MANY else 3,
        ncols=min(len(handles[0]), 10), handletextpad=0.1,
    )  # fmt: skip
    return figure


def _map(axes: Any, found: Measurement, embedding: Embedding) -> None:
    axes.set_visible(True)
    labels = np.asarray(found.stored.labels)[found.embedded]
    x, y = embedding.points.T
    present = np.unique(labels)
    size = 9 if len(labels) < MANY else 4
    rest = ~np.isin(labels, present[:MOST_COLORED])
    if rest.any():
        axes.scatter(x[rest], y[rest], size, LIGHT, label='other classes',
                     linewidths=0, rasterized=True)  # fmt: skip
    for number, label in enumerate(present[:MOST_COLORED]):
        chosen = labels == label
        axes.scatter(
            x[chosen], y[chosen], size, **point_style(number),
            label=short_class(found.stored.classes[label], 14),
            linewidths=0, alpha=0.8, rasterized=True,
        )  # fmt: skip
    names = {int(n): found.stored.classes[n] for n in present[:MOST_COLORED]}
    _name_classes(axes, embedding.points, labels, names)
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(visible=True, color=LIGHT)


def _name_classes(
    axes: Any, points: np.ndarray, labels: np.ndarray, names: dict[int, str]
) -> None:
    """Write each class's name at the median of its points, or above it."""
    middles = np.array(
        [np.median(points[labels == label], axis=0) for label in names]
    )
    span = np.maximum(np.ptp(points, axis=0), 1e-9)
    for (x, y), name in zip(
        spread_apart(middles / span, *LABEL) * span, names.values()
    ):
        axes.text(
            x, y, short_class(name, 10), fontsize=6.5, ha='center',
            va='center', fontweight='bold',
            path_effects=[effects.withStroke(linewidth=2, foreground='w')],
        )  # fmt: skip


@in_style()
def draw_frequency(found: Measurement) -> Figure:
    """Fraction of a class's images that open a channel, as a heat map."""
    sites = found.shown
    classes = len(found.stored.classes)
    height = 0.55 + min(max(0.13 * classes, 0.6), 2.2)
    figure = new_figure(PAGE_WIDTH, height * len(sites) + 0.2)
    axes = figure.subplots(len(sites), 1, squeeze=False)[:, 0]
    for axis, site in zip(axes, sites):
        frequency = found.frequency[site]
        # channels in descending order of their mean frequency
        order = np.argsort(-np.nanmean(frequency, axis=0), kind='stable')
        image = axis.imshow(
            frequency[:, order], vmin=0, vmax=1, aspect='auto',
            interpolation='nearest',
        )  # fmt: skip
        axis.set_title(f'{site}, {frequency.shape[1]} channels')
        if classes <= 20:
            names = [short_class(n, 14) for n in found.stored.classes]
            axis.set_yticks(range(classes), names)
        axis.set_ylabel('class')
    axes[-1].set_xlabel('channel, in the order of the mean frequency')
    bar = figure.colorbar(image, ax=axes, fraction=0.03, pad=0.01)
    bar.set_label("fraction of the class's images that open it")
    return figure
