"""Gram matrices, pair by pair."""

import math

import pytest
import torch

from fgc_mm.errors import FGCError
from fgc_mm.functional import gram_similarity


def cosine(a, b):
    dot = sum(x * y for x, y in zip(a, b))
    return dot / math.hypot(*a) / math.hypot(*b)


def test_against_loops_over_pairs():
    vectors, features = torch.rand(5, 3), torch.randn(5, 7)
    v, f = vectors.tolist(), features.tolist()
    want = sum(
        (cosine(v[i], v[j]) - cosine(f[i], f[j])) ** 2
        for i in range(5)
        for j in range(5)
    )
    value = gram_similarity(vectors, features)
    assert value.item() == pytest.approx(want / 25, rel=1e-5)


def test_same_directions_have_no_loss():
    features = torch.rand(4, 6)
    scale = torch.rand(4, 1) + 0.5
    assert gram_similarity(scale * features, features) < 1e-12


def test_rows_of_zeros_train_on():
    vectors = torch.zeros(3, 4, requires_grad=True)
    gram_similarity(vectors, torch.rand(3, 5)).backward()
    assert vectors.grad.isfinite().all()


@pytest.mark.parametrize('shape', [(3, 4, 2, 2), (4, 4), (3,)])
def test_shapes_without_a_row_per_image_are_refused(shape):
    with pytest.raises(FGCError, match=r'one row per image .*: pool'):
        gram_similarity(torch.rand(3, 4), torch.rand(*shape))


def test_half_types_and_autocast_are_computed_in_float32():
    vectors, features = torch.rand(50, 8), torch.randn(50, 8)
    want = gram_similarity(vectors, features)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert torch.equal(gram_similarity(vectors, features), want)
    half = gram_similarity(vectors.bfloat16(), features.bfloat16())
    exact = gram_similarity(
        vectors.bfloat16().float(), features.bfloat16().float()
    )
    assert half.dtype == torch.float32 and torch.equal(half, exact)
