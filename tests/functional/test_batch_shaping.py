import math

import numpy as np
import pytest
import torch
from scipy import special, stats

from fgc_mm.errors import FGCError
from fgc_mm.functional import _beta, batch_shaping

PRIORS = [
    (0.6, 0.4),
    (0.4, 0.6),
    (1.0, 1.0),
    (2.0, 3.0),
    (0.05, 0.05),
    (1.5, 0.5),
    (1.05, 1.05),
    (30.0, 8.0),
]


@pytest.mark.parametrize(('a', 'b'), PRIORS)
def test_table_against_scipy(a, b):
    p = torch.cat(
        [
            torch.linspace(0, 1, 100_001),
            torch.logspace(-30, 0, 5_001),
            1 - torch.logspace(-8, 0, 5_001),
            torch.tensor([0.0, 1e-8, 0.5, 1 - 2**-24, 1.0]),
        ]
    )
    want = special.betainc(a, b, p.double().numpy())
    assert np.abs(_beta.beta_cdf(p, a, b).numpy() - want).max() < 1e-6


def test_table_is_built_once():
    first = _beta._tables(0.6, 0.4, torch.device('cpu'))
    with torch.inference_mode():
        fresh = _beta._tables(0.61, 0.4, torch.device('cpu'))
    assert _beta._tables(0.6, 0.4, torch.device('cpu')) is first
    assert not fresh[0].is_inference()


def naive(probs, alpha, beta):
    """Loss and gradient by Python loops and scipy."""
    count, channels = len(probs), len(probs[0])
    loss, grad = 0.0, [[0.0] * channels for _ in range(count)]
    for c in range(channels):
        order = sorted(range(count), key=lambda n, c=c: (probs[n][c], n))
        for rank, n in enumerate(order, start=1):
            p = probs[n][c]
            gap = rank / (count + 1) - stats.beta.cdf(p, alpha, beta)
            loss += gap**2 / count
            pdf = stats.beta.pdf(min(max(p, 1e-6), 1 - 1e-6), alpha, beta)
            grad[n][c] = -2 * pdf * gap / count
    return loss, torch.tensor(grad, dtype=torch.float32)


@pytest.mark.parametrize('count', [1, 2, 9, 256])
@pytest.mark.parametrize(('a', 'b'), [(0.6, 0.4), (2.0, 3.0)])
def test_against_loops(count, a, b):
    torch.manual_seed(count)
    probs = (torch.randn(count, 3) * 2).sigmoid().requires_grad_()
    loss = batch_shaping(probs, a, b)
    (3 * loss).backward()
    want, grad = naive(probs.tolist(), a, b)
    assert loss.shape == () and loss.dtype == torch.float32
    assert math.isclose(loss.item(), want, rel_tol=1e-5, abs_tol=1e-7)
    torch.testing.assert_close(probs.grad, 3 * grad, rtol=1e-4, atol=1e-5)


def test_defaults_are_the_published_prior():
    probs = torch.rand(8, 2)
    assert batch_shaping(probs) == batch_shaping(probs, alpha=0.6, beta=0.4)
    assert batch_shaping(probs) != batch_shaping(probs, alpha=0.4, beta=0.6)


def test_finite_differences():
    torch.manual_seed(0)
    probs = torch.rand(6, 2).clamp(0.05, 0.95).requires_grad_()
    batch_shaping(probs, 2.0, 3.0).backward()
    step = 1e-3
    for n in range(6):
        for c in range(2):
            ends = []
            for sign in (-1, 1):
                moved = probs.detach().clone()
                moved[n, c] += sign * step
                ends.append(naive(moved.tolist(), 2.0, 3.0)[0])
            slope = (ends[1] - ends[0]) / (2 * step)
            assert abs(float(probs.grad[n, c]) - slope) < 2e-3


def test_quantiles_of_the_prior_have_no_loss():
    rank = np.arange(1, 100) / 100
    probs = torch.tensor(stats.beta.ppf(rank, 0.6, 0.4)).float().unsqueeze(1)
    order = torch.randperm(99)
    assert batch_shaping(probs[order]) < 1e-8


@pytest.mark.parametrize('value', [0.0, 1.0, 1e-30, 1e-8, 1 - 2**-24])
def test_ends_give_finite_gradients(value):
    probs = torch.full((4, 2), value, requires_grad=True)
    batch_shaping(probs).backward()
    assert probs.grad.isfinite().all() and probs.grad.abs().max() < 1e4
    assert probs.grad.abs().max() > 0


def test_equal_probabilities_rank_in_order():
    probs = torch.full((5, 1), 0.3, requires_grad=True)
    batch_shaping(probs).backward()
    _, grad = naive(probs.tolist(), 0.6, 0.4)
    torch.testing.assert_close(probs.grad, grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_types(dtype):
    probs = torch.rand(16, 3).to(dtype).requires_grad_()
    loss = batch_shaping(probs)
    loss.backward()
    want, grad = naive(probs.tolist(), 0.6, 0.4)
    assert loss.dtype == torch.float32 and probs.grad.dtype == dtype
    assert math.isclose(loss.item(), want, rel_tol=1e-5)
    torch.testing.assert_close(probs.grad.float(), grad, rtol=1e-2, atol=1e-4)


def test_nan_stays_nan():
    assert batch_shaping(torch.tensor([[0.5], [math.nan]])).isnan()


@pytest.mark.parametrize(
    'options',
    [{'alpha': 0}, {'alpha': -0.6}, {'beta': 0.0}, {'beta': math.nan}],
)
def test_prior_error(options):
    (name,) = options
    with pytest.raises(FGCError, match=f'{name} = .* is not positive'):
        batch_shaping(torch.rand(4, 2), **options)


@pytest.mark.parametrize(
    'probs',
    [torch.rand(4), torch.rand(0, 3), torch.ones(2, 2, dtype=torch.int64)],
)
def test_shape_error(probs):
    with pytest.raises(FGCError, match=r'floating-point \(N, C\)'):
        batch_shaping(probs)
