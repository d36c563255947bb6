"""Ranks that are missing in a collective that fails."""

import pytest

from fgc_mm.reliability.missing_ranks import (
    describe_missing,
    find_missing_ranks,
)


def test_of_three_the_one_that_hangs_is_named(run_ranks, tmp_path):
    first, hanging, last = run_ranks('missing_ranks.py', 3, tmp_path)
    assert hanging is None
    for result in (first, last):
        assert result['lost'] == [1]
        assert result['said'].startswith('rank 1 has not joined')


def test_several_ranks_are_named_or_none():
    assert describe_missing([1, 3]).startswith(
        'rank 1 and rank 3 have not joined'
    )
    assert describe_missing([]).startswith(
        'a collective has failed although every'
    )


@pytest.mark.parametrize(
    'error',
    [
        ValueError('Timed out'),
        RuntimeError('shapes do not fit'),
        RuntimeError('DataLoader timed out after 5 seconds'),
        RuntimeError('Timed out waiting 4000ms'),  # no other processes
    ],
)
def test_another_error_is_nobodys_absence(error):
    assert find_missing_ranks(error) is None
