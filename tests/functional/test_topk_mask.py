"""The largest of each row, by sorting lists."""

import math

import pytest
import torch

from fgc_mm.functional.topk_mask import num_kept_channels, topk_mask


@pytest.mark.parametrize('share', [0.01, 0.3, 0.45, 0.55, 0.999, 1.0])
@pytest.mark.parametrize('channels', [1, 7, 20, 64])
def test_against_sorted_lists(share, channels):
    saliency = torch.randn(5, channels)
    count = math.ceil(round(share * channels, 9))
    won = topk_mask(saliency, share)
    for row, mine in zip(saliency.tolist(), won.tolist()):
        best = sorted(range(channels), key=lambda c: -row[c])[:count]
        assert {c for c in range(channels) if mine[c]} == set(best)


def test_equals_are_taken_in_their_order():
    assert (
        topk_mask(torch.zeros(2, 4), 0.5).tolist()
        == [[True] * 2 + [False] * 2] * 2
    )


def test_rounding_makes_no_channel():
    # 0.07 * 100 is a hair above 7 in binary
    assert 0.07 * 100 > 7 and num_kept_channels(0.07, 100) == 7
    assert num_kept_channels(0.001, 20) == 1


@pytest.mark.parametrize(('share', 'channels'), [(0.07, 100), (0.55, 100)])
def test_rounding_makes_no_channel_of_a_share_that_changes(share, channels):
    assert share * channels > round(share * channels)  # in floating point
    saliency = torch.rand(2, channels)
    changing = torch.tensor(share, dtype=torch.float64)
    mask = topk_mask(saliency, changing)
    assert torch.equal(mask, topk_mask(saliency, share))
    assert mask.sum(1).tolist() == [round(share * channels)] * 2
