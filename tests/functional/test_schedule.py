"""Numbers that are scheduled."""

import math

import pytest

from fgc_mm.errors import FGCError
from fgc_mm.functional.schedule import Progress, Schedule


def at(weight, epoch=0, iteration=0):
    return Schedule.build(weight).at(Progress(epoch, iteration))


def test_a_number_is_constant():
    weight = Schedule.build(3)
    assert weight.at(None) == weight.at(Progress(99, 99)) == 3.0
    assert not weight.varies and weight.first_epoch == 0


@pytest.mark.parametrize(
    ('epoch', 'want'),
    [(0, 0.0), (99, 0.0), (100, 0.0), (101, 0.002), (150, 0.1),
     (299, 0.398), (300, 0.4), (301, 0.4), (9999, 0.4)],
)  # fmt: skip
def test_a_ramp(epoch, want):
    ramp = dict(start_value=0.0, end_value=0.4, begin=100, end=300)
    assert at(ramp, epoch, 7) == pytest.approx(want)


@pytest.mark.parametrize(
    ('epoch', 'want'), [(0, 0.75), (1, 0.7425), (50, 0.375), (100, 0.0)]
)
def test_a_ramp_down(epoch, want):
    ramp = dict(start_value=0.75, end_value=0.0, begin=0, end=100)
    assert at(ramp, epoch) == pytest.approx(want)


@pytest.mark.parametrize(('epoch', 'want'), [(0, 0), (4, 0), (5, 2), (6, 2)])
def test_a_step_happens_at_its_epoch(epoch, want):
    assert at(dict(start_value=0, end_value=2, begin=5, end=5), epoch) == want


def test_iterations_instead_of_epochs():
    ramp = dict(start_value=1, end_value=3, begin=10, end=20, by_epoch=False)
    assert [at(ramp, 99, i) for i in (0, 10, 15, 20)] == [1, 1, 2, 3]


@pytest.mark.parametrize(
    ('options', 'first'),
    [
        (dict(start_value=0, end_value=1, begin=5, end=5), 5),
        (dict(start_value=0, end_value=1, begin=5, end=9), 6),
        (dict(start_value=0, end_value=1), 0),
        (dict(start_value=2, end_value=1, begin=5, end=9), 0),
        (dict(start_value=0, end_value=1, begin=5, end=9, by_epoch=False),
         None),
    ],
)  # fmt: skip
def test_the_first_epoch_with_a_weight(options, first):
    weight = Schedule.build(options)
    assert weight.first_epoch == first
    if first is not None:
        assert weight.at(Progress(first, 0)) > 0
        assert first == 0 or weight.at(Progress(first - 1, 0)) == 0


@pytest.mark.parametrize(
    'options',
    [
        dict(start_value=0, end_value=1, start=5),
        dict(start_value=0),
        dict(end_value=0),
        dict(),
    ],
)
def test_a_mapping_has_known_keys(options):
    with pytest.raises(FGCError, match=r'not a schedule; give a number'):
        Schedule.build(options)


@pytest.mark.parametrize(('begin', 'end'), [(5, 4), (-1, 4)])
def test_a_line_has_an_end_after_its_begin(begin, end):
    with pytest.raises(FGCError, match=r'goes backwards; 0 <= begin <= end'):
        Schedule(0, 1, begin, end)


def test_a_moving_weight_needs_the_progress():
    weight = Schedule.build(dict(start_value=0, end_value=1, end=3))
    with pytest.raises(FGCError, match=r"'fgc_mm\.LossProgressHook'"):
        weight.at(None)


@pytest.mark.parametrize('weight', ['abc', None, -1, float('nan'), [1]])
def test_an_invalid_weight_is_refused(weight):
    with pytest.raises(FGCError, match='loss_weight'):
        Schedule.build(weight)


def test_a_cosine_is_flat_at_both_ends():
    curve = dict(start_value=1.0, end_value=0.4, end=8, curve='cosine')
    want = [0.4 + 0.6 * (1 + math.cos(math.pi * e / 8)) / 2 for e in range(9)]
    assert [at(curve, e) for e in range(9)] == pytest.approx(want)
    assert at(curve, 99) == 0.4


def test_an_unknown_curve_is_refused_under_its_own_name():
    with pytest.raises(FGCError, match=r"curve='step' of a density .*cosine"):
        Schedule.build(
            dict(start_value=1, end_value=0, curve='step'), 'density'
        )
