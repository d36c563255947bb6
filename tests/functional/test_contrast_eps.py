"""The constant inside the logarithm of the published loss."""

import math

import pytest
import torch

from fgc_mm.errors import FGCError
from fgc_mm.functional import neighbor_contrast

EPS = 1e-7


def naive(queries, bank, positives, temperature, eps):
    """The published formula as written, with plain loops in float64."""
    costs = []
    for query, chosen in zip(queries.detach(), positives, strict=True):
        weights = [math.exp(float(query @ row) / temperature) for row in bank]
        s = sum(weights[j] for j in chosen.tolist()) / sum(weights)
        costs.append(-math.log(eps + s))
    return sum(costs) / len(costs)


def batch(spread, count=5, length=30, dim=4, chosen=3):
    generator = torch.Generator().manual_seed(0)
    draw = dict(generator=generator, dtype=torch.float64)
    queries = (spread * torch.randn(count, dim, **draw)).requires_grad_()
    bank = torch.nn.functional.normalize(torch.randn(length, dim, **draw))
    lines = [torch.randperm(length, generator=generator) for _ in queries]
    return queries, bank, torch.stack(lines)[:, :chosen]


@pytest.mark.parametrize('eps', [EPS, 0.01, 0.5])
@pytest.mark.parametrize('spread', [0.1, 1.0, 3.0])
def test_loss_against_loops(eps, spread):
    queries, bank, positives = batch(spread)
    got = neighbor_contrast(queries, bank, positives, 0.3, eps=eps)
    want = naive(queries, bank, positives, 0.3, eps)
    assert math.isclose(got.item(), want, rel_tol=1e-9)


@pytest.mark.parametrize('eps', [EPS, 0.01, 0.5])
def test_gradient_is_scaled_by_s_over_s_plus_eps(eps):
    queries, bank, positives = batch(1.0)
    (plain,) = torch.autograd.grad(
        neighbor_contrast(queries, bank, positives, 0.3), queries
    )
    (got,) = torch.autograd.grad(
        neighbor_contrast(queries, bank, positives, 0.3, eps=eps), queries
    )
    p = (queries.detach() @ bank.T / 0.3).softmax(1)
    s = p.gather(1, positives).sum(1, keepdim=True)
    assert torch.allclose(got, plain * s / (s + eps), rtol=1e-9)


def test_gradient_against_autograd_of_the_formula_as_written():
    queries, bank, positives = batch(2.0)
    p = (queries @ bank.T / 0.07).softmax(1)
    written = -(EPS + p.gather(1, positives).sum(1)).log().mean()
    (want,) = torch.autograd.grad(written, queries)
    (got,) = torch.autograd.grad(
        neighbor_contrast(queries, bank, positives, 0.07, eps=EPS), queries
    )
    assert torch.allclose(got, want, rtol=1e-9, atol=1e-15)


def test_finite_where_the_formula_as_written_underflows():
    queries = torch.tensor([[1000.0, 0.0]], requires_grad=True)
    bank = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    wrong = torch.tensor([[1]])
    loss = neighbor_contrast(queries, bank, wrong, 0.07, eps=EPS)
    loss.backward()
    assert math.isclose(loss.item(), -math.log(EPS), rel_tol=1e-6)
    assert torch.equal(queries.grad, torch.zeros(1, 2))


def test_random_banks_silence_samples_with_wide_logits():
    """The published start: own row only, logits far apart, random rows."""
    torch.manual_seed(0)
    bound = 1 / math.sqrt(64 / 3)
    bank = torch.empty(50_000, 64).uniform_(-bound, bound)
    queries = (6 * torch.randn(32, 64)).requires_grad_()
    own = torch.arange(32)[:, None]
    norms = []
    for eps in (0.0, EPS):
        loss = neighbor_contrast(queries, bank, own, 0.07, eps=eps)
        (grad,) = torch.autograd.grad(loss, queries)
        norms.append(grad.norm(dim=1))
    assert ((norms[1] / norms[0]) < 0.01).float().mean() > 0.8


@pytest.mark.parametrize('eps', [-1e-7, 1.0, float('nan')])
def test_eps_outside_its_range(eps):
    with pytest.raises(FGCError, match=r'eps=\S+ is outside \[0, 1\)'):
        neighbor_contrast(*batch(1.0), 0.3, eps=eps)


def test_eps_belongs_to_log_sum():
    with pytest.raises(FGCError, match=r"eps=1e-07 with form='sum_log'"):
        neighbor_contrast(*batch(1.0), 0.3, form='sum_log', eps=EPS)
