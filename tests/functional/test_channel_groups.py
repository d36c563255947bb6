"""Groups of channels, against loops."""

import pytest
import torch

from fgc_mm.errors import FGCError
from fgc_mm.functional.channel_groups import (
    group_sizes,
    spread_groups,
    sum_groups,
)

SIZES = [(4, 4, 4), (4, 4, 3), (7,), (1, 3, 2), (2, 4)]


@pytest.mark.parametrize(
    ('channels', 'group', 'sizes'),
    [
        (16, 8, (8, 8)),
        (20, 8, (8, 8, 4)),
        (16, 16, (16,)),
        (16, 64, (16,)),
        (3, 2, (2, 1)),
        (3, 1, None),
    ],
)
def test_the_last_group_has_the_remaining_channels(channels, group, sizes):
    assert group_sizes(channels, group) == sizes


@pytest.mark.parametrize('group', [0, -8, 2.0, '8', True, None])
def test_a_group_is_a_whole_number(group):
    with pytest.raises(FGCError, match=r'group=.* of a gate .*such as 8\.$'):
        group_sizes(16, group)


def decision_of(sizes):
    return [g for g, size in enumerate(sizes) for _ in range(size)]


@pytest.mark.parametrize('sizes', SIZES)
def test_spread_repeats_each_value_for_its_channels(sizes):
    values = torch.randn(5, len(sizes), requires_grad=True)
    spread = spread_groups(values, sizes)
    owner = decision_of(sizes)
    want = [[row[g].item() for g in owner] for row in values]
    assert spread.tolist() == want
    weight = torch.randn(5, len(owner))
    (spread * weight).sum().backward()
    for g in range(len(sizes)):
        own = [c for c, owner_of in enumerate(owner) if owner_of == g]
        torch.testing.assert_close(values.grad[:, g], weight[:, own].sum(1))


@pytest.mark.parametrize('sizes', SIZES)
def test_sums_are_those_of_a_loop(sizes):
    values = torch.randn(5, sum(sizes))
    sums = sum_groups(values, sizes)
    start = 0
    for g, size in enumerate(sizes):
        own = values[:, start : start + size].sum(dim=1)
        torch.testing.assert_close(sums[:, g], own)
        start += size


def test_without_groups_nothing_is_copied():
    values = torch.randn(2, 3)
    for function in (spread_groups, sum_groups):
        assert function(values, None) is values


@pytest.mark.parametrize('sizes', [(4, 4, 3), (1, 3, 2)])
def test_groups_on_a_device(sizes, one_device):
    values = torch.ones(2, sum(sizes), device='meta')
    with one_device:
        sums = sum_groups(values, sizes)
        assert spread_groups(sums, sizes).shape == values.shape


@pytest.mark.parametrize('function', [spread_groups, sum_groups])
def test_sizes_are_copied_to_a_device_once(function, monkeypatch):
    sizes = (1, 3, 5) if function is sum_groups else (3, 5, 1)
    values = torch.ones(2, 9 if function is sum_groups else 3, device='meta')
    function(values, sizes)
    monkeypatch.setattr(torch, 'tensor', None)
    function(values, sizes)
