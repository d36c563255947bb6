"""ManiDP's and FTWT's state where several processes train."""

import torch

from ..runs.rank_states import thresholds


def test_two_ranks_have_the_thresholds_of_one(two_ranks):
    one = thresholds(list(range(8)))
    assert one['threshold'] > 0 and one['bound'] > 0
    for rank in two_ranks:
        for name in ('threshold', 'sum', 'bound'):
            torch.testing.assert_close(rank['thresholds'][name], one[name])


def test_ranks_agree_to_the_bit(two_ranks):
    first, second = (rank['thresholds'] for rank in two_ranks)
    assert all(torch.equal(first[k], second[k]) for k in ('threshold', 'sum'))


def test_in_the_cooldown_no_parameter_is_unused(two_ranks):
    for rank in two_ranks:
        assert rank['cooled'].abs().sum() == 0
