"""Rows of several processes."""

import torch

from fgc_mm.memory.gather import gather_together


def test_alone_nothing_happens():
    rows = torch.rand(3, 2)
    assert gather_together([rows])[0] is rows


def test_ranks_with_different_numbers_of_rows(two_ranks):
    first = torch.arange(6.0).view(3, 2)
    for result in two_ranks:
        want = torch.cat([first, first[:1] + 10])
        assert torch.equal(result['uneven'], want)
        assert result['numbers'].tolist() == [7, 7, 8]
        assert result['numbers'].dtype == torch.int64


def test_a_rank_without_rows(two_ranks):
    for result in two_ranks:
        want = (torch.arange(6.0).view(3, 2) + 10).bfloat16()
        assert torch.equal(result['empty'], want)
