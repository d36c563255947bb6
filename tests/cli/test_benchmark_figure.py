"""What the figure of a benchmark shows, read back from its axes."""

import pytest

from fgc_mm.cli import benchmark_figure as module
from fgc_mm.figure_style import DYNAMIC

NAMES = ['dense', 'dynamic', 'static', 'broken']
SITES = [
    dict(site='conv1', macs_ratio=2.0, time_ratio=1.5),
    dict(site='conv2', macs_ratio=3.0, time_ratio=None),
]


def report(threads=(1, 2), sites=SITES):
    times = [30.0, 20.0, 25.0]
    rows = [dict(name=n, ms=t) for n, t in zip(NAMES, times)]
    rows.append(dict(name='broken', error='no compiler'))
    runs = [dict(threads=t, rows=rows, sites=sites) for t in threads]
    return dict(config='c.py', image=[3, 8, 8], batch=1, runs=runs)


@pytest.fixture
def drawn(monkeypatch):
    """Draws a report, and gives the figure."""

    def draw(found):
        figures = []
        monkeypatch.setattr(
            module, 'figure_bytes', lambda figure, _: figures.append(figure)
        )
        module.draw_benchmark(found)
        return figures[0]

    return draw


def test_bars_are_sorted_and_the_dynamic_network_stands_out(drawn):
    left, _ = drawn(report()).axes
    labels = left.get_yticklabels()
    names = [label.get_text() for label in labels]
    assert names == ['dynamic', 'static', 'dense', 'broken']
    colored = [x.get_text() for x in labels if x.get_color() == DYNAMIC]
    assert colored == ['dynamic']
    for bars in left.containers:
        assert [bar.get_width() for bar in bars] == [20, 25, 30, 0]
        faces = [bar.get_facecolor()[:3] for bar in bars]
        assert faces.count(faces[0]) == 1
    texts = [text.get_text() for text in left.texts]
    assert texts == ['20', '25', '30', 'no time'] * 2


def test_a_legend_names_threads_and_colour_and_covers_nothing(drawn):
    figure = drawn(report())
    left, right = figure.axes
    shown = [x.get_text() for x in left.get_legend().texts]
    assert shown == ['1 thread', '2 threads', 'dynamic']
    shown = [x.get_text() for x in right.get_legend().texts]
    assert shown == ['MACs', 'time, 1 thread']
    figure.draw_without_rendering()
    for axes in figure.axes:
        legend = axes.get_legend().get_window_extent()
        assert not legend.overlaps(axes.get_window_extent())


def test_without_sites_there_is_one_panel(drawn):
    figure = drawn(report(threads=(1,), sites=[]))
    assert len(figure.axes) == 1


def test_it_is_a_file_of_either_kind():
    assert module.draw_benchmark(report()).startswith(b'\x89PNG')
    assert b'<svg' in module.draw_benchmark(report(), 'svg')
