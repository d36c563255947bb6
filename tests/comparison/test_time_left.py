"""The estimate of when a comparison ends."""

import pytest

from fgc_mm.comparison.time_left import TimeLeft


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_it_is_the_epochs_that_are_left_over_those_per_second(clock):
    left = TimeLeft(dict(a=10, b=10), dict(a=6, b=0), clock)
    assert left.seconds() is None and str(left) == ''
    clock.now = 120.0
    left.update('a', 8)
    left.update('b', 2)  # 4 epochs in 120 s; 10 are left
    assert left.seconds() == pytest.approx(300)
    assert str(left) == 'about 5 min left'


def test_a_run_keeps_its_own_pace(clock):
    names = 'fast', 'slow', 'later'
    left = TimeLeft(dict.fromkeys(names, 10), dict.fromkeys(names, 0), clock)
    left.update('fast', 0)
    clock.now = 100.0
    left.update('fast', 10)  # 10 s an epoch
    left.update('slow', 0)
    clock.now = 300.0
    left.update('slow', 2)  # 100 s an epoch
    # 8 epochs of the slow run, and 10 of the mean, one run at a time
    assert left.seconds() == pytest.approx(8 * 100 + 10 * 55)


def test_runs_beside_each_other(clock):
    left = TimeLeft(dict(a=10, b=10), dict(a=0, b=0), clock)
    for name in 'ab':
        left.update(name, 0)
    clock.now = 100.0
    left.update('a', 5)
    left.update('b', 1)
    # 5 epochs of 20 s and 9 of 100 s, two runs at a time
    assert left.seconds() == pytest.approx((5 * 20 + 9 * 100) / 2)


def test_a_run_that_failed_has_none_left(clock):
    left = TimeLeft(dict(a=10, b=10), dict(a=0, b=0), clock)
    clock.now = 60.0
    left.update('a', 5)
    left.end('b')
    assert left.seconds() == pytest.approx(60)


@pytest.mark.parametrize(
    ('seconds', 'text'),
    [
        (0, ''),
        (10, 'about 1 min left'),
        (3 * 3600 + 120, 'about 3 h 2 min left'),
        (50 * 3600, 'about 2 d 2 h left'),
    ],
)
def test_it_is_short(clock, monkeypatch, seconds, text):
    left = TimeLeft({}, {}, clock)
    monkeypatch.setattr(left, 'seconds', lambda: seconds)
    assert str(left) == text
