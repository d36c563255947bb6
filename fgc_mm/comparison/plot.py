"""Error over MACs, a point per method, with error bars."""

from __future__ import annotations

from collections.abc import Sequence

from ..figure_style import (
    PAGE_WIDTH,
    figure_bytes,
    in_style,
    new_figure,
    point_style,
)
from .table import Row


@in_style()
def plot(rows: Sequence[Row], kind: str = 'png') -> bytes:
    """The rows as a figure.

    Every method has a colour and a marker; a dynamic one is filled. Bars are
    sample standard deviations over the seeds.

    Args:
        rows: Of the table.
        kind: ``'png'`` or ``'svg'``.
    """
    figure = new_figure(PAGE_WIDTH, 4.2)
    axes = figure.subplots()
    for number, row in enumerate(rows):
        macs, error = row.values['macs/mean'], row.values['error']
        style = point_style(number)
        axes.errorbar(
            macs.mean / 1e6,
            error.mean,
            xerr=(macs.std or 0) / 1e6,
            yerr=error.std or 0,
            **style,
            markersize=6,
            markerfacecolor=style['color'] if row.dynamic else 'white',
            capsize=3,
            linestyle='none',
            label=row.method,
        )
    axes.set_xlabel('mean MACs per image (millions)')
    axes.set_ylabel('error of the last epoch (%)')
    axes.grid(True)
    if rows:
        figure.legend(loc='outside right upper')
    return figure_bytes(figure, kind)
