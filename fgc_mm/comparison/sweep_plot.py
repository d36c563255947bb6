"""Error over a setting, or over pruned MACs, as lines of rows."""

from collections.abc import Sequence

from matplotlib.axes import Axes

from ..figure_style import (
    PAGE_WIDTH,
    figure_bytes,
    in_style,
    legend_above,
    literal_text,
    new_figure,
    series_style,
)
from .study import Axis
from .table import Row

LOG_RATIO = 20  # above this ratio of largest to smallest: logarithmic axis


@in_style()
def sweep_plot(axis: Axis, rows: Sequence[Row], kind: str = 'png') -> bytes:
    """The error of the last epoch along an axis, a line per series.

    Bars are sample standard deviations over the seeds. Rows of the table that
    are not on the axis are left out.
    """
    figure = new_figure(PAGE_WIDTH * 0.7, 3.2)
    axes = figure.subplots()
    found = {row.method: row for row in rows}
    for number, (name, members) in enumerate(axis.series.items()):
        points = [
            (_position(axis, found[row], value), found[row])
            for row, value in members.items()
            if row in found
        ]
        _line(axes, name, sorted(points, key=lambda p: p[0]), number)
    sizes = [abs(v) for m in axis.series.values() for v in m.values() if v]
    if axis.label and sizes and max(sizes) > LOG_RATIO * min(sizes):
        axes.set_xscale('symlog', linthresh=min(sizes))
    axes.set_xlabel(literal_text(axis.label or 'pruned MACs (%)'))
    axes.set_ylabel('error of the last epoch (%)')
    axes.grid(True)
    if len(axis.series) > 1:
        legend_above(axes)
    return figure_bytes(figure, kind)


def _position(axis: Axis, row: Row, value: float | None) -> float:
    """The row's position: its setting, or its pruning ratio."""
    if axis.label and value is not None:
        return value
    return row.values['macs/pruning_ratio'].mean


def _line(
    axes: Axes, name: str, points: Sequence[tuple[float, Row]], number: int
) -> None:
    errors = [row.values['error'] for _, row in points]
    axes.errorbar(
        [position for position, _ in points],
        [error.mean for error in errors],
        yerr=[error.std or 0 for error in errors],
        capsize=3,
        label=literal_text(name),
        **series_style(number),
    )
