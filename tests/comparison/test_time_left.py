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
