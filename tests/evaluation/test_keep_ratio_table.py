"""The table of sites."""

import numpy as np

from fgc_mm.evaluation.keep_ratio_table import SiteRow, render_sites, site_rows

FIRING = np.array([0.0, 1.0, 0.5, 1.0, 0.25, 0.0, 0.0])


def test_each_site_has_its_own_channels():
    one, two = site_rows(('a', 'b'), (4, 3), FIRING)
    assert one == SiteRow('a', 4, 0.625, 0.25, 0.5)
    assert (two.name, two.channels, two.always_open) == ('b', 3, 0.0)
    assert two.keep_ratio == 0.25 / 3 and two.never_open == 2 / 3


def test_almost_never_and_almost_always_are_neither():
    (row,) = site_rows(('a',), (2,), np.array([1e-6, 1 - 1e-6]))
    assert row.never_open == row.always_open == 0


def test_one_site():
    (row,) = site_rows(('a',), (7,), FIRING)
    assert row.keep_ratio == FIRING.mean()


def test_the_table_shows_every_number_on_a_line():
    text = render_sites(site_rows(('layer1.0.conv1', 'b'), (4, 3), FIRING))
    lines = [line for line in text.splitlines() if 'layer1.0' in line]
    assert len(lines) == 1
    assert lines[0].replace('│', ' ').split() == [
        'layer1.0.conv1', '4', '0.625', '0.250', '0.500'
    ]  # fmt: skip
    for column in ('channels', 'keep ratio', 'never open', 'always open'):
        assert column in text
    assert '\x1b' not in text  # no colours in a log file


def test_a_long_name_is_not_cut():
    name = 'stages.3.blocks.12.some_long_branch.conv1'
    assert name in render_sites(site_rows((name,), (7,), FIRING))
