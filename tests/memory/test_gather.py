"""Rows of several processes."""

import torch
from torch import distributed as dist

from fgc_mm.memory.gather import gather_tables, row_counts


def test_alone_nothing_happens():
    rows = torch.rand(3, 2)
    assert gather_tables([rows])[0] is rows


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


def test_the_number_of_rows_is_not_copied_to_the_device(monkeypatch):
    """Such a copy of a number would block the host."""
    monkeypatch.setattr(dist, 'get_world_size', lambda: 2)
    monkeypatch.setattr(
        dist, 'all_gather', lambda counts, own: [c.copy_(own) for c in counts]
    )
    monkeypatch.setattr(torch, 'tensor', None)
    assert row_counts(torch.ones(3, 2)) == [3, 3]
    assert row_counts(torch.ones(0, 2)) == [0, 0]
