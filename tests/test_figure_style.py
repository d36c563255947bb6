"""One style for all figures, without a trace in matplotlib's settings."""

import matplotlib as mpl

from fgc_mm import figure_style
from fgc_mm.comparison.documents import trade_off_plot as module
from fgc_mm.comparison.study import Study


def row(name, dynamic=True, ratio=50.0, macs=1e6, error=9.0):
    return {
        'method': name, 'data': 'digits', 'epochs': 1, 'dynamic': dynamic,
        'seed': 0, 'macs/mean': macs, 'macs/pruning_ratio': float(ratio),
        'error': error, 'parameters': 1.0,
    }  # fmt: skip


def rows(count):
    return [
        row(f'method {i}', i % 2 == 0, 50 - i, 1e6 * (i + 1), 9.0 - i)
        for i in range(count)
    ]


def plot(results, kind='png'):
    labels = {result['method']: result['method'] for result in results}
    study = Study('x', ())
    return module.trade_off_plot(study, results, kind, labels=labels)


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


def test_colours_mean_the_same_in_every_comparison(monkeypatch):
    ratios = [('dense', False, 0), ('FGC', True, 50), ('FPGM', False, 50),
              ('L1', False, 40), ('FBS', True, 30)]  # fmt: skip
    figures = []
    monkeypatch.setattr(
        module, 'figure_bytes', lambda figure, *_: figures.append(figure)
    )
    plot([row(*values) for values in ratios])
    lines = figures[0].axes[0].lines
    styles = {
        line.get_label().partition(',')[0]: dict(
            color=line.get_color(), marker=line.get_marker()
        )
        for line in lines
    }
    dense, fgc, fpgm, l1, fbs = (styles[name] for name, *_ in ratios)
    assert dense == dict(color=figure_style.BLACK, marker='*')
    assert [fgc, fbs] == [figure_style.point_style(i) for i in range(2)]
    assert fpgm['color'] == l1['color'] == figure_style.GREY
    assert fpgm['marker'] != l1['marker']
