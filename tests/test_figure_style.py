"""One style for all figures, without a trace in matplotlib's settings."""

import matplotlib as mpl

from fgc_mm import figure_style
from fgc_mm.comparison.compare_plot import _styles, plot
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


def test_colours_mean_the_same_in_every_comparison():
    ratios = [('dense', False, 0), ('FGC', True, 50), ('FPGM', False, 50),
              ('L1', False, 40), ('FBS', True, 30)]  # fmt: skip
    found = [
        Row(name, 'digits', 1, dynamic, (0,),
            {'macs/pruning_ratio': MeanStd(ratio, None)})
        for name, dynamic, ratio in ratios
    ]  # fmt: skip
    dense, fgc, fpgm, l1, fbs = _styles(found)
    assert dense == dict(color=figure_style.BLACK, marker='*')
    assert [fgc, fbs] == [figure_style.point_style(i) for i in range(2)]
    assert fpgm['color'] == l1['color'] == figure_style.GREY
    assert fpgm['marker'] != l1['marker']
