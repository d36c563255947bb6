"""What the figure of error over MACs shows, read back from its axes."""

import numpy as np
import pytest
from PIL import Image

from fgc_mm.comparison.documents import trade_off_plot as module
from fgc_mm.comparison.documents.labels import row_labels
from fgc_mm.comparison.documents.trade_off_plot import (
    sweep_points,
    trade_off_plot,
)
from fgc_mm.comparison.entry import Entry
from fgc_mm.comparison.study import Study

ROWS = 'fgc_a.py', 'dense_a.py', 'fpgm_a.py', 'fpgm_35.py'
STUDY = Study('Title', tuple(map(Entry, ROWS)))


def result(method, seed, error, macs, dynamic=True, sweep=None):
    found = {
        'method': method, 'seed': seed, 'error': error, 'macs/mean': macs,
        'macs/pruning_ratio': 100 - macs / 1e5, 'dynamic': dynamic,
        'epochs': 3, 'data': 'x', 'parameters': 3,
    }  # fmt: skip
    if sweep:
        found['threshold_sweep'] = [
            dict(threshold=t, accuracy=a, macs=m) for t, a, m in sweep
        ]
    return found


SWEPT = [
    result('fgc_a', 0, 20.0, 4.0e6, sweep=[(0.4, 81, 5e6), (0.5, 80, 4e6)]),
    result(
        'fgc_a', 1, 22.0, 4.2e6,
        sweep=[(0.5, 78, 4.2e6), (0.4, 79, 5.2e6), (0.9, 20, 1e6)],
    ),
]  # fmt: skip
FIXED = [
    result('dense_a', 0, 18.0, 1e7, dynamic=False),
    result('fpgm_a', 0, 24.0, 4.5e6, dynamic=False),
    result('fpgm_35', 0, 19.0, 6.5e6, dynamic=False),
]


def test_a_line_is_the_mean_at_the_thresholds_of_all_seeds():
    """By hand: 0.9 is only of one seed."""
    first, second = sweep_points(SWEPT)
    assert first.macs.mean == pytest.approx(5.1)
    assert first.error.mean == 20.0
    assert first.error.std == pytest.approx(np.std([19, 21], ddof=1))
    assert (second.macs.mean, second.error.mean) == (pytest.approx(4.1), 21)
    assert sweep_points([{'seed': 0}]) == []
    only = sweep_points([SWEPT[0], {'seed': 2}])  # which has no sweep
    assert [point.error.mean for point in only] == [19, 20]


@pytest.fixture
def axes(monkeypatch):
    """Of the figure of all four runs."""
    figures = []
    monkeypatch.setattr(
        module, 'figure_bytes', lambda figure, *_: figures.append(figure)
    )
    trade_off_plot(STUDY, SWEPT + FIXED)
    return figures[0].axes[0]


def curves(axes):
    return [[*zip(*line.get_data())] for line in axes.lines]


def test_gated_dense_and_static_networks(axes):
    found = curves(axes)
    assert [(pytest.approx(5.1), 20.0), (pytest.approx(4.1), 21.0)] in found
    assert [(pytest.approx(4.1), 21.0)] in found  # as trained
    assert [(0.0, 18.0), (1.0, 18.0)] in found  # across the axes
    # static, from the dense one, each way of it once in the legend
    assert [(4.5, 24.0), (6.5, 19.0), (10.0, 18.0)] in found
    texts = [text.get_text() for text in axes.figure.legends[0].texts]
    assert texts == [
        'FGC, 2 seeds', 'dense, 1 seed', 'static (FPGM), 1 seed'
    ]  # fmt: skip


def test_static_networks_are_marked_but_once_in_the_legend(axes):
    found = curves(axes)
    assert [(4.5, 24.0)] in found and [(6.5, 19.0)] in found


def test_a_ruined_network_does_not_hide_the_others(monkeypatch):
    figures = []
    monkeypatch.setattr(
        module, 'figure_bytes', lambda figure, *_: figures.append(figure)
    )
    ruined = result('fgc_a', 0, 20.0, 4e6, sweep=[(0.5, 80, 4e6), (1, 9, 1e6)])
    trade_off_plot(STUDY, [ruined, FIXED[0]])
    bottom, top = figures[0].axes[0].get_ylim()
    assert 10 < bottom < 18 and 20 < top < 30


@pytest.mark.parametrize('results', [[], SWEPT, SWEPT[:1] + FIXED])
def test_it_is_a_picture_with_its_description(tmp_path, results):
    (tmp_path / 'a.png').write_bytes(
        trade_off_plot(STUDY, results, 'png', 'said')
    )
    with Image.open(tmp_path / 'a.png') as picture:
        assert picture.width > 500
        assert picture.info['Description'] == 'said'
    assert b'said' in trade_off_plot(STUDY, results, 'svg', 'said')


def called(*entries, gated=()):
    results = [{'method': row, 'dynamic': True} for row in gated]
    return [*row_labels(Study('x', entries), results).values()]


def test_a_row_is_called_by_its_label_its_method_or_its_name():
    rows = ['fgc_resnet20_x_55', 'bas_y', 'k20', 'fpgm_x']
    assert called(*map(Entry, rows)) == ['FGC', 'BAS', 'k20', 'static (FPGM)']
    assert called(Entry('fpgm_x'), gated=['fpgm_x']) == ['fpgm_x']
    variants = Entry('dense_a'), Entry('dense_b', label='dense (cosine)')
    assert called(*variants) == ['dense', 'dense (cosine)']
    twice = called(Entry('fgc_a'), Entry('b', label='FGC'), Entry('dense_a'))
    assert twice == ['fgc_a', 'b', 'dense']


def drawn(monkeypatch, names, results):
    figures = []
    monkeypatch.setattr(
        module, 'figure_bytes', lambda figure, *_: figures.append(figure)
    )
    trade_off_plot(Study('x', tuple(map(Entry, names))), results)
    return figures[0].axes[0]


def test_three_static_methods_look_different(monkeypatch):
    names = [f'{k}_a.py' for k in ('fpgm', 'group_norm', 'bn_scale')]
    results = [
        result(name[:-3], 0, 20.0 + number, 5e6, dynamic=False)
        for number, name in enumerate(names)
    ]
    axes = drawn(monkeypatch, names, results)
    marked = [line for line in axes.lines if line.get_marker() != 'None']
    assert [line.get_label() for line in marked] == [
        'static (FPGM), 1 seed',
        'static (group norm), 1 seed',
        'static (BatchNorm scale), 1 seed',
    ]
    assert len({line.get_marker() for line in marked}) == 3


def test_gates_in_groups_are_not_static(monkeypatch):
    names = ['group_8.py', 'random_init.py', 'random_a.py']
    results = [
        result(name[:-3], 0, 20.0, 5e6, dynamic=name != 'random_a.py')
        for name in names
    ]
    axes = drawn(monkeypatch, names, results)
    texts = [text.get_text() for text in axes.figure.legends[0].texts]
    assert texts == [
        'group_8, 1 seed', 'random_init, 1 seed', 'static (random), 1 seed'
    ]  # fmt: skip
