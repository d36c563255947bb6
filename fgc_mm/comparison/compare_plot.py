"""Error over MACs, a point per method, with error bars."""

from collections.abc import Sequence

from ..figure_style import (
    DENSE_MARKERS,
    DENSE_NETWORK,
    MARKERS,
    PAGE_WIDTH,
    STATIC_PRUNING,
    figure_bytes,
    in_style,
    new_figure,
    point_style,
)
from .table import Row


@in_style()
def plot(rows: Sequence[Row], kind: str = 'png') -> bytes:
    """The rows as a figure.

    Dynamic methods have filled markers in a colour; dense networks are black
    and static ones grey, each with a marker of its own. Bars are sample
    standard deviations over the seeds.
    """
    figure = new_figure(PAGE_WIDTH, 4.2)
    axes = figure.subplots()
    for row, style in zip(rows, _styles(rows)):
        filled = style['color'] != STATIC_PRUNING
        macs, error = row.values['macs/mean'], row.values['error']
        axes.errorbar(
            macs.mean / 1e6,
            error.mean,
            xerr=(macs.std or 0) / 1e6,
            yerr=error.std or 0,
            color=style['color'],
            marker=style['marker'],
            markersize=9 if style['marker'] == '*' else 6,
            markerfacecolor=None if filled else 'white',
            capsize=2,
            elinewidth=0.8,
            markeredgewidth=0.8,
            linestyle='none',
            label=row.method,
        )
    axes.set_xlabel('mean MACs per image (millions)')
    axes.set_ylabel('error of the last epoch (%)')
    axes.grid(True)
    if rows:
        figure.legend(loc='outside right upper')
    return figure_bytes(figure, kind)


def _styles(rows: Sequence[Row]) -> list[dict[str, str]]:
    """Colour and marker of each row; see :func:`plot`."""
    styles = []
    dynamic = static = dense = 0
    for row in rows:
        ratio = row.values.get('macs/pruning_ratio')
        if row.dynamic and (ratio is None or ratio.mean):
            styles.append(point_style(dynamic))
            dynamic += 1
        elif ratio is not None and ratio.mean == 0:
            marker = DENSE_MARKERS[dense % len(DENSE_MARKERS)]
            styles.append(dict(color=DENSE_NETWORK, marker=marker))
            dense += 1
        else:
            marker = MARKERS[(static + 1) % len(MARKERS)]
            styles.append(dict(color=STATIC_PRUNING, marker=marker))
            static += 1
    return styles
