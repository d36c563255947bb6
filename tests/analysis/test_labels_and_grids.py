"""Names and places in figures."""

import numpy as np

from fgc_mm.analysis.figures.labels_and_grids import (
    grid_shape,
    millions,
    short,
    short_class,
    spread_apart,
)
from fgc_mm.figure_style import figure_bytes, in_style, new_figure


def test_names_keep_their_distinguishing_part():
    assert short('layer1.0.conv1', 8) == '…0.conv1'
    assert short_class('automobile', 6) == 'autom…'
    assert short('same', 4) == short_class('same', 4) == 'same'


def test_labels_do_not_overlap():
    wanted = np.random.default_rng(0).random((30, 2)) * [3, 0.5]
    places = spread_apart(wanted, 0.5, 0.1)
    assert (places[:, 0] == wanted[:, 0]).all()
    for i, a in enumerate(places):
        for b in places[:i]:
            apart = np.abs(a - b)
            assert apart[0] >= 0.5 or apart[1] >= 0.1 - 1e-9
    far = np.array([[0.0, 0.0], [0.0, 1.0]])
    assert (spread_apart(far, 0.5, 0.1) == far).all()


def test_grids():
    assert [grid_shape(n, 3) for n in (1, 3, 4, 7)] == [
        (1, 1), (1, 3), (2, 2), (3, 3)]  # fmt: skip


def test_macs_are_rounded_for_reading():
    assert [millions(x) for x in (999, 1500, 997.8e3, 25.34e6, 4.1e9)] == [
        '999', '1.50 k', '998 k', '25.3 M', '4.10 G']  # fmt: skip


def test_names_are_drawn_as_they_are():
    """Without formulas, and none is left out of a legend."""
    names = ['_hidden', '$5_$', '$x$', 'a_b']
    with in_style():
        axes = new_figure().subplots()
        for name in names:
            axes.plot([1, 10], label=short(name))
        shown = axes.legend().get_texts()
        axes.set_title(short_class('$5_$'))
        axes.set_xscale('log')  # whose labels are formulas
        figure_bytes(axes.figure)
    drawn = [text.get_text().replace(r'\$', '$').strip() for text in shown]
    assert drawn == names
    formulas = [text.get_text() for text in axes.get_xticklabels()]
    assert any('mathdefault' in text for text in formulas)
    assert axes.get_xticklabels()[0].get_parse_math()
