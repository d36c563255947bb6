"""The planned ratio against trying every ratio."""

from dataclasses import replace

import pytest
import torch

from fgc_mm.errors import FGCError
from fgc_mm.functional import LayerMACs, MACsTable, mass_mask, uniform_mask
from fgc_mm.functional.channel_groups import sum_groups
from fgc_mm.functional.ftwt_budget import expected_cost, ratio_for_budget

CHANNELS = 40


@pytest.fixture
def given():
    scores = torch.rand(
        30, CHANNELS, generator=torch.Generator().manual_seed(0)
    )
    site = ((0, None),)
    layers = (
        LayerMACs('backbone.a', 'backbone', 9, 3, CHANNELS, out_sites=site),
        LayerMACs('backbone.b', 'backbone', 9, CHANNELS, 5, in_sites=site),
        LayerMACs('backbone.gates.a.x', 'gate', 1, 3, CHANNELS),
    )
    return [scores], MACsTable(layers, ('a',), (CHANNELS,))


def test_the_cost_is_that_of_the_target_and_the_gates(given):
    scores, table = given
    kept = mass_mask(scores[0], 0.6).sum(dim=1).mean().item()
    want = (kept * 9 * 8 + 3 * CHANNELS) / (CHANNELS * 9 * 8)
    assert expected_cost(scores, table, mass_mask, 0.6) == pytest.approx(want)


def test_decisions_for_groups_cost_their_channels(given):
    scores, table = given
    sizes = (16, 16, 8)
    table = replace(table, group_sizes=(sizes,))
    sums = sum_groups(scores[0], sizes)
    kept = 0
    for row in mass_mask(sums, 0.8).tolist():
        kept += sum(size for size, one in zip(sizes, row) if one) / 30
    want = (kept * 9 * 8 + 3 * CHANNELS) / (CHANNELS * 9 * 8)
    got = expected_cost([sums], table, mass_mask, 0.8)
    assert got == pytest.approx(want)


@pytest.mark.parametrize(
    ('target', 'ends'),
    [(mass_mask, (1e-6, 1.0)), (uniform_mask, (1 - 1e-6, 0.0))],
)
@pytest.mark.parametrize('budget', [0.2, 0.45, 0.8])
def test_no_ratio_of_a_fine_grid_is_nearer(given, target, ends, budget):
    found = ratio_for_budget(*given, target, budget, ends)
    grid = [(i + 0.5) / 1000 for i in range(1000)]

    def miss(ratio):
        return abs(expected_cost(*given, target, ratio) - budget)

    assert miss(found) <= min(map(miss, grid)) + 1e-3


@pytest.mark.parametrize('budget', [0, 1, -0.5, 1.5, float('nan')])
def test_a_budget_is_a_share(given, budget):
    with pytest.raises(
        FGCError, match=r'is not a fraction of the dense MACs; give'
    ):
        ratio_for_budget(*given, mass_mask, budget, (1e-6, 1.0))


def test_a_budget_below_the_gates_names_the_smallest(given):
    least = expected_cost(*given, mass_mask, 1e-6)
    with pytest.raises(
        FGCError, match=rf'lowest possible cost is {least:.4f}'
    ):
        ratio_for_budget(*given, mass_mask, 0.02, (1e-6, 1.0))
