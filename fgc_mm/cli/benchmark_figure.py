"""The figure of a benchmark: times of the networks, savings of the sites.

The colour shows whether a network is dynamic, the lightness the number of
threads.
"""

from collections.abc import Sequence
from math import inf
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Patch

from fgc_mm.figure_style import (
    BLACK,
    DYNAMIC,
    OTHER,
    PAGE_WIDTH,
    figure_bytes,
    in_style,
    legend_above,
    new_figure,
)

MARK = 'dynamic'  # in the names of the networks of `to_dynamic`
SHADES = 1.0, 0.6, 0.35  # opacity, per number of threads


@in_style()
def draw_benchmark(report: dict[str, Any], kind: str = 'png') -> bytes:
    """Milliseconds of every network, ratios of every site; PNG or SVG."""
    names = _fastest_first(report['runs'][0]['rows'])
    sites = report['runs'][0]['sites']
    height = max(2.6, 0.19 * max(len(names), len(sites)) + 0.9)
    figure = new_figure(PAGE_WIDTH, height)
    if sites:
        left, right = figure.subplots(1, 2, width_ratios=[3, 2])
        _draw_sites(right, sites, _threads(report['runs'][0]))
    else:
        left = figure.subplots()
    _draw_times(left, report, names)
    size = 'x'.join(map(str, report['image']))
    figure.suptitle(f'{report["config"]}, images of {size}', fontsize=9)
    return figure_bytes(figure, kind)


def _fastest_first(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Names of the networks; those without a time are the last."""
    ordered = sorted(rows, key=lambda row: row.get('ms') or inf)
    return [row['name'] for row in ordered]


def _draw_times(axes: Axes, report: dict[str, Any], names: list[str]) -> None:
    """Milliseconds of every network, a bar per number of threads."""
    height = 0.84 / len(report['runs'])
    colors = [DYNAMIC if MARK in name else OTHER for name in names]
    for number, run in enumerate(report['runs']):
        found = {row['name']: row.get('ms') for row in run['rows']}
        values = [found.get(name) or 0 for name in names]
        middle = (number - (len(report['runs']) - 1) / 2) * height
        places = [place + middle for place in range(len(names))]
        bars = axes.barh(
            places, values, height, color=colors, alpha=_shade(number)
        )
        labels = [f'{value:.3g}' if value else 'no time' for value in values]
        axes.bar_label(bars, labels, padding=2, fontsize=5.5, color=BLACK)
    axes.set_yticks(range(len(names)), names)
    for label in axes.get_yticklabels():
        if MARK in label.get_text():
            label.set(color=DYNAMIC, fontweight='bold')
    axes.invert_yaxis()
    axes.margins(x=0.1, y=0.02)
    axes.set_xlabel(f'ms for a batch of {report["batch"]}')
    legend_above(axes, 3, handles=_time_legend(report['runs']))


def _time_legend(runs: Sequence[dict[str, Any]]) -> list[Patch]:
    shades = [
        Patch(facecolor=OTHER, alpha=_shade(number), label=_threads(run))
        for number, run in enumerate(runs)
    ]
    return [*shades, Patch(color=DYNAMIC, label='dynamic')]


def _draw_sites(
    axes: Axes, sites: Sequence[dict[str, Any]], threads: str
) -> None:
    """What every site saves, in MACs and in time, in the network's order."""
    places = range(len(sites))
    axes.barh(
        [p - 0.2 for p in places], [s['macs_ratio'] for s in sites], 0.38,
        facecolor='none', edgecolor=BLACK, linewidth=0.6, label='MACs',
    )  # fmt: skip
    axes.barh(
        [p + 0.2 for p in places], [s['time_ratio'] or 0 for s in sites], 0.38,
        color=DYNAMIC, label=f'time, {threads}',
    )  # fmt: skip
    axes.set_yticks(places, [s['site'] for s in sites])
    axes.invert_yaxis()
    axes.margins(y=0.02)
    axes.axvline(1, color=BLACK, linewidth=0.6, linestyle=':')
    axes.set_xlabel('dense over dynamic, per site')
    legend_above(axes)


def _shade(number: int) -> float:
    return SHADES[min(number, len(SHADES) - 1)]


def _threads(run: dict[str, Any]) -> str:
    count = run['threads']
    return f'{count} thread{"s" if count > 1 else ""}'
