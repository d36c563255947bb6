"""Figure of ``fgc-mm benchmark``."""

from __future__ import annotations

from typing import Any

from fgc_mm.figure_style import (
    GREY,
    PAGE_WIDTH,
    figure_bytes,
    in_style,
    legend_above,
    new_figure,
)


@in_style()
def draw_benchmark(report: dict[str, Any], kind: str = 'png') -> bytes:
    """Bars: milliseconds of every network, ratios of every site."""
    names = [row['name'] for row in report['runs'][0]['rows']]
    sites = report['runs'][0]['sites']
    height = max(2.6, 0.19 * max(len(names), len(sites)) + 0.9)
    figure = new_figure(PAGE_WIDTH, height)
    left, right = figure.subplots(1, 2)
    _draw_times(left, report, names)
    _draw_sites(right, sites)
    size = 'x'.join(map(str, report['image']))
    figure.suptitle(f'{report["config"]}, images of {size}', fontsize=9)
    return figure_bytes(figure, kind)


def _draw_times(axes: Any, report: dict[str, Any], names: list[str]) -> None:
    """Milliseconds of every network, a bar per number of threads."""
    height = 0.8 / len(report['runs'])
    for number, run in enumerate(report['runs']):
        values = [row.get('ms', 0) for row in run['rows']]
        positions = [i + number * height for i in range(len(names))]
        threads = run['threads']
        label = f'{threads} thread{"s" if threads > 1 else ""}'
        axes.barh(positions, values, height, label=label)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel(f'ms for a batch of {report["batch"]}')
    legend_above(axes)


def _draw_sites(axes: Any, sites: list[dict[str, Any]]) -> None:
    """Bars with the ratios of MACs and of time of every site."""
    positions = range(len(sites))
    axes.barh([p - 0.2 for p in positions], [s['theory'] for s in sites], 0.4,
              label='MACs')  # fmt: skip
    axes.barh([p + 0.2 for p in positions], [s['clock'] or 0 for s in sites],
              0.4, label='time')  # fmt: skip
    axes.set_yticks(positions, [s['site'] for s in sites])
    axes.invert_yaxis()
    axes.axvline(1, color=GREY, linewidth=0.6)
    axes.set_xlabel('dense over dynamic, per site')
    legend_above(axes)
