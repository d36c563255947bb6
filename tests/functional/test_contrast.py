import math

import pytest
import torch

from fgc_mm.functional import _chunks, neighbor_contrast

FORMS = ['log_sum', 'sum_log']


def naive(queries, bank, positives, temperature, form):
    """Python loops, straight from the two formulas."""
    losses = []
    for i, query in enumerate(queries.tolist()):
        z = [
            sum(a * b for a, b in zip(query, row, strict=True)) / temperature
            for row in bank.tolist()
        ]
        total = sum(math.exp(value) for value in z)
        p = [math.exp(z[j]) / total for j in positives[i].tolist()]
        if form == 'log_sum':
            losses.append(-math.log(sum(p)))
        else:
            losses.append(-sum(math.log(value) for value in p))
    return sum(losses) / len(losses)


def dense(queries, bank, positives, temperature, form):
    log_p = (queries.double() @ bank.double().T / temperature).log_softmax(1)
    chosen = log_p.gather(1, positives)
    if form == 'log_sum':
        return -chosen.logsumexp(1).mean()
    return -chosen.sum(1).mean()


def batch(count, length, dim, chosen, seed=0):
    torch.manual_seed(seed)
    queries = torch.randn(count, dim, requires_grad=True)
    bank = torch.nn.functional.normalize(torch.randn(length, dim))
    positives = torch.stack(
        [torch.randperm(length)[:chosen] for _ in range(count)]
    )
    return queries, bank, positives


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('chosen', [1, 4])
def test_against_loops(form, chosen):
    queries, bank, positives = batch(3, 9, 4, chosen)
    got = neighbor_contrast(queries, bank, positives, 0.3, form)
    assert got.shape == () and got.dtype == torch.float32
    want = naive(queries, bank, positives, 0.3, form)
    assert math.isclose(got.item(), want, rel_tol=1e-5)


def test_log_sum_is_the_default():
    inputs = batch(3, 9, 4, 2)
    assert neighbor_contrast(*inputs, 0.1) == neighbor_contrast(
        *inputs, 0.1, form='log_sum'
    )


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('gathered', [1, 700, 2**22])
@pytest.mark.parametrize('length', [30, 5001])
def test_value_and_gradient_against_dense(monkeypatch, form, gathered, length):
    sizes = _chunks.CPU._replace(gathered=gathered)
    monkeypatch.setattr(_chunks, 'CPU', sizes)
    queries, bank, positives = batch(10, length, 20, 13)
    got = neighbor_contrast(queries, bank, positives, 0.07, form)
    (grad,) = torch.autograd.grad(2 * got, queries)
    want = dense(queries, bank, positives, 0.07, form)
    (exact,) = torch.autograd.grad(2 * want, queries)
    torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(grad, exact, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('form', FORMS)
def test_finite_differences(form):
    queries, bank, positives = batch(3, 40, 5, 4)
    queries = queries.detach().double().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: neighbor_contrast(x, bank, positives, 0.2, form), queries
    )


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('half', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('autocast', [False, True])
def test_low_precision(form, half, autocast):
    queries, bank, positives = batch(6, 300, 16, 5)
    queries = queries.detach().to(half).requires_grad_()
    bank = bank.to(half)
    with torch.autocast('cpu', dtype=torch.bfloat16, enabled=autocast):
        got = neighbor_contrast(queries, bank, positives, 0.07, form)
    want = dense(queries, bank, positives, 0.07, form)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=1e-5)
    (grad,) = torch.autograd.grad(got, queries)
    (exact,) = torch.autograd.grad(want, queries)
    assert grad.dtype == half
    torch.testing.assert_close(
        grad, exact, rtol=1e-2, atol=1e-2 * float(exact.abs().max())
    )


@pytest.mark.parametrize('form', FORMS)
def test_extreme_logits_neither_overflow_nor_saturate(form):
    # z is +1000 for row 0, -1000 for row 1, 0 for row 2.
    bank = torch.tensor([[10.0], [-10.0], [0.0]])
    queries = torch.tensor([[100.0]], requires_grad=True)
    for row, loss, slope in (
        (0, 0.0, 0.0),
        (1, 2000.0, 20.0),
        (2, 1000.0, 10.0),
    ):
        got = neighbor_contrast(queries, bank, torch.tensor([[row]]), 1, form)
        (grad,) = torch.autograd.grad(got, queries)
        assert got.item() == pytest.approx(loss, abs=1e-3)
        # An epsilon inside the log would flatten these slopes to zero.
        assert float(grad) == pytest.approx(slope, abs=1e-4)


def test_log_sum_of_far_positives_keeps_its_gradient():
    queries, bank, _ = batch(4, 200, 8, 3)
    far = (queries.detach() @ bank.T).topk(3, largest=False).indices
    big = (queries.detach() * 60).requires_grad_()
    got = neighbor_contrast(big, bank, far, 0.07)
    (grad,) = torch.autograd.grad(got, big)
    want = dense(big, bank, far, 0.07, 'log_sum')
    (exact,) = torch.autograd.grad(want, big)
    assert want.item() > 1000
    torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=0)
    torch.testing.assert_close(grad, exact, rtol=1e-4, atol=1e-4)


def test_all_rows_positive_gives_zero():
    queries, bank, _ = batch(3, 12, 4, 1)
    positives = torch.arange(12).expand(3, 12)
    got = neighbor_contrast(queries, bank, positives, 0.07)
    (grad,) = torch.autograd.grad(got, queries)
    assert abs(got.item()) < 1e-5 and grad.abs().max() < 1e-4


def test_bank_may_be_written_before_backward():
    queries, bank, positives = batch(4, 50, 8, 3)
    want = dense(queries, bank.clone(), positives, 0.1, 'log_sum')
    got = neighbor_contrast(queries, bank, positives, 0.1)
    bank.zero_()
    (grad,) = torch.autograd.grad(got, queries)
    (exact,) = torch.autograd.grad(want, queries)
    torch.testing.assert_close(grad, exact, rtol=1e-4, atol=1e-5)


def test_no_gradient_for_the_bank():
    queries, bank, positives = batch(4, 50, 8, 3)
    bank.requires_grad_()
    neighbor_contrast(queries, bank, positives, 0.1).backward()
    assert bank.grad is None and queries.grad.abs().sum() > 0


@pytest.mark.parametrize('form', FORMS)
def test_no_dense_scores_and_bounded_positives(largest, form):
    # 201 x 256 positives of 512 channels would be 100 MiB.
    torch.manual_seed(0)
    queries = torch.randn(256, 512, requires_grad=True)
    bank = torch.randn(20000, 512)
    positives = torch.randint(0, 20000, (256, 201))
    with largest:
        neighbor_contrast(queries, bank, positives, 0.07, form).backward()
    assert largest.elements <= 4 * 2**20 < 256 * 20000


@pytest.mark.parametrize('form', FORMS)
def test_backward_keeps_only_query_sized_tensors(form):
    queries, bank, positives = batch(8, 500, 6, 50)
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda x: sizes.append(x.numel()) or x, lambda x: x
    ):
        neighbor_contrast(queries, bank, positives, 0.1, form)
    assert max(sizes) <= queries.numel()
