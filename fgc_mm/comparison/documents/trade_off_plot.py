"""Error over MACs of trained networks, gated ones at several thresholds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes

from ...figure_style import (
    DENSE_MARKERS,
    DENSE_NETWORK,
    LINES,
    PAGE_WIDTH,
    STATIC_PRUNING,
    figure_bytes,
    in_style,
    literal_text,
    new_figure,
    series_style,
)
from ..results import SWEEP
from ..study import Study
from ..table import MeanStd, Results, Row, rows_of
from .labels import method_of, row_labels

HEADROOM = 0.6  # space above the trained points, in multiples of their span
BELOW = 0.3
STATIC = 'X', 'P', 'v', '<', '>', 'p'  # markers
LEAST_SPAN = 2.0  # points of error


@dataclass(frozen=True)
class Point:
    """MACs and error of a network over the seeds.

    Attributes:
        macs: Millions per image.
        error: Percent.
    """

    macs: MeanStd
    error: MeanStd


@in_style()
def trade_off_plot(
    study: Study,
    results: Results,
    kind: str = 'png',
    description: str | None = None,
    labels: Mapping[str, str] | None = None,
) -> bytes:
    """The rows of a study as a figure; the lower left is best.

    A gated network is a line over the thresholds of its gates, with a large
    marker at the threshold of training; dense networks are black, the
    largest with a horizontal line at their error; statically pruned networks
    are joined by a line that begins at the dense one. Bars and bands are
    sample standard deviations over the seeds, whose number is in the legend.

    Args:
        study: The rows and their order.
        results: As returned by ``read_stored_results``.
        kind: One of ``FORMATS``.
        description: Text in the metadata of the file.
        labels: Of the rows, for the legend; by default of
            :func:`row_labels`.
    """
    figure = new_figure(PAGE_WIDTH, 3.4)
    axes = figure.subplots()
    rows = rows_of(results)
    gated = [row for row in rows if row.dynamic and _is_pruned(row)]
    if labels is None:
        labels = row_labels(study, results)
    fixed = [row for row in rows if row not in gated]
    for number, row in enumerate(gated):
        _gated(axes, row, _legend(labels[row.method], row), number)
    _fixed(axes, fixed, labels)
    _limits(axes, [*map(_trained, rows)])
    axes.set_xlabel('mean MACs per test image (millions)')
    axes.set_ylabel('test error, last epoch (%)')
    axes.grid(True)
    if rows:
        figure.legend(loc='outside right upper')
    return figure_bytes(figure, kind, description)


def sweep_points(results: Results) -> list[Point]:
    """The points of a row, at the thresholds that all its sweeps have."""
    sweeps = [
        {point['threshold']: point for point in result[SWEEP]}
        for result in results
        if result.get(SWEEP)
    ]
    if not sweeps:
        return []
    shared = set.intersection(*(set(sweep) for sweep in sweeps))
    return [
        Point(
            MeanStd.of(sweep[value]['macs'] / 1e6 for sweep in sweeps),
            MeanStd.of(100 - sweep[value]['accuracy'] for sweep in sweeps),
        )
        for value in sorted(shared)
    ]


def _is_pruned(row: Row) -> bool:
    return row.values['macs/pruning_ratio'].mean != 0


def _trained(row: Row) -> Point:
    macs, error = row.values['macs/mean'], row.values['error']
    spread = None if macs.std is None else macs.std / 1e6
    return Point(MeanStd(macs.mean / 1e6, spread), error)


def _legend(name: str, row: Row) -> str:
    count = len(row.seeds)
    return f'{name}, {count} seed{"s" if count > 1 else ""}'


def _gated(axes: Axes, row: Row, label: str, number: int) -> None:
    style = series_style(number)
    points = sweep_points(row.results)
    macs = [point.macs.mean for point in points]
    error = [point.error.mean for point in points]
    axes.plot(macs, error, **style, markersize=2.5)
    if any(point.error.std for point in points):
        deviation = [point.error.std or 0 for point in points]
        low = [e - d for e, d in zip(error, deviation)]
        high = [e + d for e, d in zip(error, deviation)]
        axes.fill_between(
            macs, low, high, color=style['color'], alpha=0.15, lw=0
        )
    _mark(
        axes, _trained(row), label, **style, markersize=7,
        markeredgecolor='white',
    )  # fmt: skip


def _fixed(axes: Axes, rows: Sequence[Row], labels: Mapping[str, str]) -> None:
    """The dense networks, and static pruning as lines from them."""
    dense = [row for row in rows if not _is_pruned(row)]
    static = [row for row in rows if row not in dense]
    most = max([_trained(row).macs.mean for row in dense], default=0)
    for number, row in enumerate(dense):
        point = _trained(row)
        style: dict[str, Any] = dict(
            color=DENSE_NETWORK, linestyle=LINES[-1 - number % 3]
        )
        if point.macs.mean == most:  # it has no line if it is a narrow one
            axes.axhline(point.error.mean, lw=1, zorder=1, **style)
        marker = DENSE_MARKERS[number % len(DENSE_MARKERS)]
        _mark(
            axes, point, _legend(labels[row.method], row), marker=marker,
            markersize=9 if marker == '*' else 6, **style,
        )  # fmt: skip
    kinds = dict.fromkeys(method_of(row.method) for row in static)
    for number, kind in enumerate(kinds):
        own = [row for row in static if method_of(row.method) == kind]
        label = kind if len(own) > 1 else labels[own[0].method]
        _static(axes, dense[:1], own, label, number)


def _static(
    axes: Axes,
    dense: Sequence[Row],
    rows: Sequence[Row],
    name: str,
    number: int,
) -> None:
    """One method of static pruning, at one or several pruning ratios."""
    style: dict[str, Any] = dict(
        color=STATIC_PRUNING, linestyle=LINES[-2 - number % 2]
    )
    points = sorted(
        map(_trained, [*dense, *rows]), key=lambda point: point.macs.mean
    )
    macs = [point.macs.mean for point in points]
    error = [point.error.mean for point in points]
    axes.plot(macs, error, **style, zorder=1)
    label = _legend(name, rows[0])
    for row in rows:
        _mark(
            axes, _trained(row), label, marker=STATIC[number % len(STATIC)],
            markersize=6, **style,
        )  # fmt: skip
        label = ''  # one entry in the legend for all rows


def _mark(axes: Axes, point: Point, label: str, **style: Any) -> None:
    """A trained network, with bars if there are several seeds."""
    macs, error = [point.macs.mean], [point.error.mean]
    axes.plot(macs, error, **style, zorder=3, label=literal_text(label))
    if point.error.std is not None:
        axes.errorbar(
            macs, error, xerr=[point.macs.std or 0], yerr=[point.error.std],
            color=style['color'], linestyle='none', capsize=2, zorder=2,
        )  # fmt: skip


def _limits(axes: Axes, points: Sequence[Point]) -> None:
    """Limit the axis, since errors at extreme thresholds are very large."""
    if not points:
        return
    errors = [point.error.mean for point in points]
    span = max(max(errors) - min(errors), LEAST_SPAN)
    bottom, top = axes.get_ylim()
    axes.set_ylim(
        max(bottom, min(errors) - BELOW * span),
        min(top, max(errors) + HEADROOM * span),
    )
