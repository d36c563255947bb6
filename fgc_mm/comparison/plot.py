"""Error over MACs, a point per method, with error bars."""

from __future__ import annotations

import io
from collections.abc import Sequence

from matplotlib.figure import Figure

from .table import Row


def plot(rows: Sequence[Row]) -> bytes:
    """The rows as a PNG.

    Dynamic methods are circles, the others squares; bars are sample standard
    deviations over the seeds.
    """
    figure = Figure(figsize=(7, 5))
    axes = figure.add_subplot()
    for number, row in enumerate(rows):
        macs, error = row.values['macs/mean'], row.values['error']
        axes.errorbar(
            macs.mean / 1e6,
            error.mean,
            xerr=(macs.std or 0) / 1e6,
            yerr=error.std or 0,
            marker='o' if row.dynamic else 's',
            color=f'C{number % 10}',
            capsize=3,
            linestyle='none',
            label=row.method,
        )
    axes.set_xlabel('mean MACs per image (millions)')
    axes.set_ylabel('error of the last epoch (%)')
    axes.grid(True)
    axes.legend(fontsize='small')
    content = io.BytesIO()
    figure.savefig(content, format='png', dpi=150, bbox_inches='tight')
    return content.getvalue()
