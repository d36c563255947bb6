"""Easiness of images."""

import pytest
import torch

from fgc_mm.losses.easiness import Easiness


def test_it_has_no_gradient():
    scores = torch.randn(4, 3, requires_grad=True)
    assert not Easiness()(scores, torch.tensor([0, 1, 2, 0]), 0).requires_grad


def test_a_certain_image_of_the_first_epoch_is_not_easy():
    """Its cross entropy is 0, and so is the bound."""
    scores = torch.tensor([[1e3, 0.0], [0.0, 0.0]])
    weights = Easiness()(scores, torch.tensor([0, 0]), 0)
    assert weights.tolist() == [0, 0]


def test_independent_labels_are_summed():
    easiness = Easiness()
    scores = torch.tensor([[2.0, -1.0, 3.0], [-3.0, -4.0, 6.0]])
    labels = torch.tensor([[1, 0, 0], [0, 0, 1]])
    entropies = [
        sum(
            -(score if label else -score).sigmoid().log().item()
            for score, label in zip(*rows)
        )
        for rows in zip(scores, labels)
    ]
    assert easiness(scores, labels, 0, independent=True).tolist() == [0, 0]
    bound = sum(entropies) / 2 / 2
    want = [max(0.0, (bound - entropy) / bound) for entropy in entropies]
    got = easiness(scores, labels, 1, independent=True).tolist()
    assert got == pytest.approx(want, rel=1e-5) and max(want) > 0
