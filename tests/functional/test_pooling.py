"""Global average pooling against the plain mean of autograd."""

import pytest
import torch

from fgc_mm.functional import global_average_pool

SHAPES = [(3, 4, 5, 6), (2, 3, 7), (2, 3, 2, 2, 2), (2, 3, 1, 1)]


def maps(shape, dtype=torch.float32):
    torch.manual_seed(0)
    return torch.randn(shape, dtype=dtype, requires_grad=True)


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_mean_and_gradient_are_those_of_the_plain_mean(shape, dtype):
    one, other = maps(shape, dtype), maps(shape, dtype)
    out = global_average_pool(one)
    want = other.mean(tuple(range(2, len(shape))))
    assert torch.equal(out, want)
    weight = torch.randn_like(want)
    out.backward(weight)
    want.backward(weight)
    torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.parametrize('shape', SHAPES)
def test_gradient_against_finite_differences(shape):
    torch.autograd.gradcheck(global_average_pool, maps(shape, torch.float64))


def test_half_precision():
    half = maps((4, 3, 8, 8), torch.bfloat16)
    out = global_average_pool(half)
    out.backward(torch.ones_like(out))
    assert out.dtype == half.grad.dtype == torch.bfloat16
    want = half.detach().double().mean((2, 3))
    torch.testing.assert_close(out.double(), want, atol=2e-3, rtol=1e-2)
    assert (half.grad == 1 / 64).all()


def test_channels_last_maps():
    last = maps((3, 4, 5, 6)).detach().to(memory_format=torch.channels_last)
    last.requires_grad_()
    out = global_average_pool(last)
    torch.testing.assert_close(out, last.mean((2, 3)))
    out.sum().backward()
    torch.testing.assert_close(last.grad, torch.full_like(last, 1 / 30))


def test_the_broadcast_gradient_adds_up_with_another_use():
    one = maps((2, 3, 4, 5))
    hidden = one * 1
    (global_average_pool(hidden).sum() + (hidden * hidden).sum()).backward()
    torch.testing.assert_close(one.grad, 2 * one.detach() + 1 / 20)


def test_vectors_have_no_positions_to_average():
    vectors = maps((4, 3))
    out = global_average_pool(vectors)
    assert torch.equal(out, vectors)
    out.sum().backward()
    assert (vectors.grad == 1).all()
