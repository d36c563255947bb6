"""Random neighbours of the same class."""

import pytest
import torch

from fgc_mm.errors import FGCError
from fgc_mm.losses.label_neighbors import LabelNeighbors

LABELS = torch.tensor([2, 0, 2, 0, 2, 0, 0, 2, 5, 5, 5, 5])


def test_distinct_of_the_same_class_and_never_itself():
    draw, indices = LabelNeighbors(LABELS, 3), torch.arange(12)
    for _ in range(20):
        rows = draw(indices)
        assert rows.shape == (12, 3) and rows.dtype == torch.int64
        for index, line in enumerate(rows.tolist()):
            assert len(set(line)) == 3 and index not in line
            assert all(LABELS[row] == LABELS[index] for row in line)


def test_every_other_image_of_the_class_is_drawn_as_often():
    torch.manual_seed(0)
    draw = LabelNeighbors(LABELS, 2)
    rows = draw(torch.full((3000,), 7))
    counts = torch.bincount(rows.flatten(), minlength=12)
    assert counts.nonzero().flatten().tolist() == [0, 2, 4]
    assert (counts[[0, 2, 4]] / 3000 - 2 / 3).abs().max() < 0.05


def test_an_image_twice_in_a_batch_and_int32_labels():
    draw = LabelNeighbors(LABELS.int(), 3)
    rows = draw(torch.tensor([0, 0, 8]))
    assert sorted(rows[0].tolist()) == sorted(rows[1].tolist()) == [2, 4, 7]
    assert sorted(rows[2].tolist()) == [9, 10, 11]


@pytest.mark.parametrize('k', [4, 9])
def test_a_class_that_is_too_small_is_named(k):
    with pytest.raises(FGCError, match=r'has 4 images; .* smaller num_nei'):
        LabelNeighbors(LABELS, k)
