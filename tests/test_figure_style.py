"""One style for all figures, without a trace in matplotlib's settings."""

import matplotlib as mpl

from fgc_mm import figure_style
from fgc_mm.comparison.plot import plot
from fgc_mm.comparison.table import MeanStd, Row


def rows(count):
    return [
        Row(f'method {i}', 'digits', 1, i % 2 == 0, (0, 1),
            {'macs/mean': MeanStd(1e6 * (i + 1), 1e5),
             'error': MeanStd(9.0 - i, None)})
        for i in range(count)
    ]  # fmt: skip


def test_series_differ_without_their_colour():
    styles = [figure_style.series_style(i) for i in range(11)]
    assert len({style['marker'] for style in styles}) == 11
    assert all(a != b for i, a in enumerate(styles) for b in styles[:i])


def test_equal_figures_are_equal_files():
    for kind in figure_style.FORMATS:
        assert plot(rows(3), kind) == plot(rows(3), kind)
    assert plot(rows(3)).startswith(b'\x89PNG')
    svg = plot(rows(3), 'svg').decode()
    assert '<text' not in svg and 'dc:date' not in svg


def test_the_style_ends_with_the_figure():
    before = dict(mpl.rcParams)
    plot(rows(1))
    assert dict(mpl.rcParams) == before
    with figure_style.in_style():
        assert mpl.rcParams['font.size'] == 8
