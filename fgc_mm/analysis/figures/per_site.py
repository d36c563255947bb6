"""Figures with numbers of every site: clusters, neighbours, channels."""

from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.figure import Figure

from ...figure_style import (
    BLACK,
    GREY,
    LIGHT,
    OPEN_CHANNELS,
    ORANGE,
    PAGE_WIDTH,
    in_style,
    new_figure,
    series_style,
)
from ..measurement import Measurement, SiteNumbers
from .labels_and_grids import grid_shape, hide_unused, short, site_ticks

Number = Callable[[SiteNumbers], float]


@in_style()
def draw_clusters(measured: Sequence[Measurement]) -> Figure:
    """NMI of feature and gate clusters, and of each with the classes."""
    return _lines(
        measured,
        [
            ('features and gates', [lambda s: s.clusters.nmi], None),
            (
                'with the classes; filled: features, hollow: gates',
                [
                    lambda s: s.clusters.features_labels,
                    lambda s: s.clusters.gates_labels,
                ],
                None,
            ),
        ],
        'normalised mutual information',
    )


@in_style()
def draw_neighbors(measured: Sequence[Measurement]) -> Figure:
    """Fraction of common neighbours, and of neighbours of the same class."""
    return _lines(
        measured,
        [
            (
                'neighbours common to features and gates',
                [lambda s: s.neighbors.common],
                lambda s: s.neighbors.chance,
            ),
            (
                'of the same class; filled: features, hollow: gates',
                [
                    lambda s: s.neighbors.same_class_features,
                    lambda s: s.neighbors.same_class_gates,
                ],
                lambda s: s.neighbors.same_class_chance,
            ),
        ],
        'fraction of the neighbours',
    )


def _lines(
    measured: Sequence[Measurement],
    panels: Sequence[tuple[str, Sequence[Number], Number | None]],
    label: str,
) -> Figure:
    """Panels with lines over the sites, a colour per checkpoint."""
    figure = new_figure(PAGE_WIDTH, 2.9)
    axes = figure.subplots(1, len(panels), sharey=True)
    names = [site.site for site in measured[0].sites]
    for axis, (title, numbers, chance) in zip(axes, panels):
        for number, found in enumerate(measured):
            for kind, value in enumerate(numbers):
                style = series_style(number)
                axis.plot(
                    [value(site) for site in found.sites],
                    label=None if kind else short(found.name),
                    markerfacecolor='white' if kind else style['color'],
                    **style,
                )
        if chance:
            values = [chance(site) for site in measured[0].sites]
            axis.plot(values, color=GREY, linestyle=':', label='chance')
        axis.set_title(title)
        axis.set_ylim(-0.02, 1.02)
        axis.grid(True, axis='y')
        site_ticks(axis, names)
    axes[0].set_ylabel(label)
    handles = axes[0].get_legend_handles_labels()
    columns = min(len(handles[0]), 5)
    figure.legend(*handles, loc='outside upper center', ncols=columns)
    return figure


@in_style()
def draw_channels(measured: Sequence[Measurement]) -> Figure:
    """Channels open for no, some or all images; and the keep ratio."""
    rows, columns = grid_shape(len(measured), 3)
    count = len(measured[0].sites)
    figure = new_figure(PAGE_WIDTH, rows * (0.9 + 0.17 * count))
    axes = figure.subplots(
        rows, columns, squeeze=False, sharey=True, sharex=True
    )
    for axis, found in zip(axes.flat, measured):
        _channel_bars(axis, found)
    hide_unused(axes, len(measured))
    for axis in axes[-1]:
        axis.set_xlabel('fraction of the channels')
    handles = axes.flat[0].get_legend_handles_labels()
    figure.legend(*handles, loc='outside upper center', ncols=4)
    return figure


def _channel_bars(axes: Any, found: Measurement) -> None:
    sites = found.sites
    rows = range(len(sites))
    dead = [site.use.dead / site.channels for site in sites]
    always = [site.use.always / site.channels for site in sites]
    varying = [1 - a - b for a, b in zip(dead, always)]
    lefts = [[0.0] * len(sites), dead, [a + b for a, b in zip(dead, varying)]]
    for left, width, color, hatch, label in zip(
        lefts,
        (dead, varying, always),
        (BLACK, LIGHT, ORANGE),
        ('', '', '///'),
        ('no image opens', 'some images open', 'all images open'),
    ):
        axes.barh(
            rows, width, 0.75, left, color=color, label=label, hatch=hatch,
            edgecolor='white', linewidth=0.4,
        )  # fmt: skip
    axes.plot(
        [site.use.keep_ratio for site in sites], rows, 'D',
        color=OPEN_CHANNELS, markeredgecolor='white', markeredgewidth=0.5,
        label='keep ratio',
    )  # fmt: skip
    axes.set_yticks([*rows], [short(site.site) for site in sites])
    axes.invert_yaxis() if not axes.yaxis_inverted() else None
    axes.set_xlim(0, 1)
    axes.set_title(short(found.name, 34))
