"""Paired differences against hand calculation."""

import math

import pytest

from fgc_mm.comparison.questions import Question, answer, answers_markdown


def run(method, seed, error, ratio=55.0):
    return {
        'method': method,
        'seed': seed,
        'error': error,
        'macs/pruning_ratio': ratio,
    }


ASKED = Question('Is a better?', 'a', 'b')
# of seed 2 only one row is finished
RESULTS = [
    run('a', 0, 10.0), run('b', 0, 11.0), run('a', 1, 12.0),
    run('b', 1, 12.5), run('b', 3, 10.0, 55.3), run('a', 3, 10.0, 55.6),
    run('a', 2, 50.0), run('c', 0, 1.0),
]  # fmt: skip


def test_difference_over_the_seeds_of_both():
    found = answer(ASKED, RESULTS)
    assert found.seeds == (0, 1, 3)
    assert found.difference == pytest.approx(-0.5)
    # differences -1, -0.5, 0: deviation 0.5; t of 2 degrees: 4.302653
    assert found.deviation == pytest.approx(0.5)
    assert found.margin == pytest.approx(4.302653 * 0.5 / math.sqrt(3))
    assert found.macs == pytest.approx(0.1) and found.same_macs
    text = answers_markdown([found])
    assert '| -0.50 ± 0.50 | -1.74 to +0.74 | +0.10 |' in text


def test_one_seed_has_no_interval_and_none_no_difference():
    one = answer(ASKED, RESULTS[:2])
    assert (one.seeds, one.difference, one.margin) == ((0,), -1.0, None)
    assert 'needs two seeds' in answers_markdown([one])
    none = answer(ASKED, RESULTS[:1])
    assert none.seeds == () and none.difference is None
    assert '| Is a better? | none yet |' in answers_markdown([none])
    assert answers_markdown([]) == ''


def test_unequal_macs_are_marked():
    found = answer(ASKED, [run('a', 0, 9.0, 50.0), run('b', 0, 9.0, 56.0)])
    assert not found.same_macs
    assert '-6.00 (not equal)' in answers_markdown([found])


def swept(run, *points):
    """A run that was also tested at other thresholds of its gates."""
    return {
        **run,
        'threshold_sweep': [
            dict(threshold=0.1, pruning_ratio=ratio, accuracy=100 - error)
            for ratio, error in points
        ],
    }


def test_the_threshold_makes_macs_equal():
    points = (60.0, 14.0), (40.0, 9.0), (50.0, 10.0)
    found = answer(
        ASKED,
        [
            swept(run('a', 0, 10.0, 50.0), *points), run('b', 0, 9.0, 55.0),
            # half a point apart: as they are
            swept(run('a', 1, 10.0, 50.0), *points), run('b', 1, 9.0, 50.5),
            # outside the tested thresholds
            swept(run('a', 2, 10.0, 50.0), *points), run('b', 2, 9.0, 80.0),
            run('a', 3, 10.0, 50.0), run('b', 3, 9.0, 50.0),
        ],
    )  # fmt: skip
    # 12 at 55 %, between 10 at 50 and 14 at 60
    assert found.difference == pytest.approx((12 - 9 + 1 + 1 + 1) / 4)
    assert found.macs == pytest.approx((0 - 0.5 - 30 + 0) / 4)
    assert found.moved == 1
    text = answers_markdown([found])
    assert '-7.62 (not equal) (1 of 4 by the threshold) |' in text


def test_gaps_of_macs_do_not_cancel():
    """5 points more with one seed and 5 less with the other are not equal."""
    found = answer(
        ASKED,
        [
            run('a', 0, 10.0, 60.0), run('b', 0, 9.0, 55.0),
            run('a', 1, 10.0, 50.0), run('b', 1, 9.0, 55.0),
        ],
    )  # fmt: skip
    assert found.macs == 0 and not found.same_macs
    assert '| +0.00 (not equal) |' in answers_markdown([found])


def test_no_row_is_moved_to_a_dense_one():
    points = (-3.0, 5.0), (40.0, 9.0)
    pair = [swept(run('a', 0, 9.5, 50.0), *points), run('b', 0, 6.0, 0.0)]
    found = answer(ASKED, pair)
    assert (found.difference, found.macs, found.moved) == (3.5, 50.0, 0)


def test_a_narrow_network_has_a_ratio_of_the_dense_one_of_the_row():
    """Nothing of it is pruned, but the row is compared at its MACs."""
    a = swept(run('a', 0, 10.0, 50.0), (50.0, 10.0), (60.0, 14.0))
    a |= {'macs/mean': 5e6, 'macs/dense': 1e7}
    narrow = run('b', 0, 9.0, 0.0)
    narrow |= {'macs/mean': 4.5e6, 'macs/dense': 4.5e6}
    found = answer(ASKED, [a, narrow])
    assert found.difference == pytest.approx(12 - 9)
    assert found.same_macs and found.moved == 1
    dense = {**narrow, 'macs/mean': 1e7, 'macs/dense': 1e7}
    found = answer(ASKED, [a, dense])
    assert found.difference == pytest.approx(1) and found.moved == 0
    assert found.macs == pytest.approx(50)
