import math

import pytest
import torch

from fgc_mm.errors import FGCError
from fgc_mm.functional import _attention, _chunks, bank_logsumexp


def dense(queries, bank, scale):
    return (queries.double() @ bank.double().T * scale).logsumexp(1)


@pytest.fixture(params=['fused', 'streamed', 'three heads'])
def path(request, monkeypatch):
    """Each way through the code, whatever this machine would choose."""
    if request.param == 'streamed':
        monkeypatch.setattr(_attention, '_find_kernel', lambda _: None)
    if request.param == 'three heads':
        monkeypatch.setattr(
            _attention, '_count_heads', lambda _, rows: min(3, rows)
        )
    return request.param


every_path = pytest.mark.usefixtures('path')


@every_path
def test_against_loop():
    torch.manual_seed(0)
    queries, bank = torch.randn(3, 4), torch.randn(11, 4)
    got = bank_logsumexp(queries, bank, 2.5)
    for i in range(3):
        total = 0.0
        for j in range(11):
            product = sum(
                queries[i, c].item() * float(bank[j, c]) for c in range(4)
            )
            total += math.exp(2.5 * product)
        assert math.isclose(got[i].item(), math.log(total), rel_tol=1e-5)


@every_path
@pytest.mark.parametrize('channels', [1, 3, 16, 20, 64, 128, 512])
@pytest.mark.parametrize('length', [1, 2, 2047, 2048, 2049, 5001])
def test_value_and_gradient_against_dense(channels, length):
    torch.manual_seed(0)
    queries = torch.randn(5, channels, requires_grad=True)
    bank = torch.nn.functional.normalize(torch.randn(length, channels))
    weight = torch.randn(5)
    got = bank_logsumexp(queries, bank, 1 / 0.07)
    assert got.shape == (5,) and got.dtype == torch.float32
    (grad,) = torch.autograd.grad(got @ weight, queries)
    want = dense(queries, bank, 1 / 0.07)
    (exact,) = torch.autograd.grad(want @ weight.double(), queries)
    torch.testing.assert_close(got.double(), want, rtol=2e-6, atol=2e-5)
    torch.testing.assert_close(grad, exact, rtol=1e-4, atol=2e-4)


@every_path
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('cast', [2**22, 2048 * 20])
def test_low_precision(monkeypatch, dtype, cast):
    sizes = _chunks.CPU._replace(attention_cast=cast)
    monkeypatch.setattr(_chunks, 'CPU', sizes)
    torch.manual_seed(0)
    queries = torch.randn(5, 20).to(dtype).requires_grad_()
    bank = torch.randn(5001, 20).to(dtype)
    got = bank_logsumexp(queries, bank, 3.0)
    want = dense(queries, bank, 3.0)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=1e-5)
    (grad,) = torch.autograd.grad(got.sum(), queries)
    (exact,) = torch.autograd.grad(want.sum(), queries)
    assert grad.dtype == dtype
    torch.testing.assert_close(grad, exact, rtol=2e-2, atol=2e-2)


@every_path
def test_finite_differences():
    torch.manual_seed(0)
    queries = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    bank = torch.randn(2500, 5, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda x: bank_logsumexp(x, bank, 1.5), queries
    )


@every_path
@pytest.mark.parametrize('size', [1e-6, 1.0, 1e3])
def test_no_overflow(size):
    torch.manual_seed(0)
    queries = torch.randn(4, 8, requires_grad=True)
    bank = torch.randn(3000, 8) * size
    got = bank_logsumexp(queries, bank, 1 / 0.07)
    want = dense(queries, bank, 1 / 0.07)
    torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=1e-5)
    got.sum().backward()
    assert queries.grad.isfinite().all()


@every_path
def test_very_unequal_parts_merge_exactly():
    bank = torch.zeros(6000, 2)
    bank[5999, 0] = 500.0
    bank[10, 0] = -500.0
    queries = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    got = bank_logsumexp(queries, bank, 2.0)
    want = torch.tensor([1000.0, 1000.0, math.log(6000)])
    torch.testing.assert_close(got, want)


@every_path
def test_bank_may_be_written_before_backward():
    queries = torch.randn(3, 4, requires_grad=True)
    bank = torch.randn(50, 4)
    want = dense(queries, bank.clone(), 1.0)
    got = bank_logsumexp(queries, bank, 1.0)
    bank.zero_()
    (grad,) = torch.autograd.grad(got.sum(), queries)
    (exact,) = torch.autograd.grad(want.sum(), queries)
    torch.testing.assert_close(grad, exact, rtol=1e-4, atol=1e-5)


@every_path
def test_strides_and_autocast():
    torch.manual_seed(0)
    bank = torch.randn(6, 2100).T
    queries = torch.randn(4, 12)[:, ::2]
    want = dense(queries, bank, 1.0).float()
    torch.testing.assert_close(bank_logsumexp(queries, bank, 1.0), want)
    wide = torch.randn(2100, 9)[:, 1:7]
    with torch.autocast('cpu', dtype=torch.bfloat16):
        got = bank_logsumexp(queries, wide, 1.0)
    torch.testing.assert_close(got, dense(queries, wide, 1.0).float())


@every_path
def test_no_gradient_for_the_bank():
    bank = torch.randn(9, 4, requires_grad=True)
    queries = torch.randn(2, 4, requires_grad=True)
    bank_logsumexp(queries, bank, 1.0).sum().backward()
    assert bank.grad is None and queries.grad is not None


@every_path
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_no_dense_scores(largest, dtype):
    queries = torch.randn(256, 8, requires_grad=True)
    bank = torch.randn(50000, 8).to(dtype)
    with largest:
        bank_logsumexp(queries, bank, 1.0).sum().backward()
    assert largest.elements <= 256 * 2048


def test_half_banks_are_cast_in_parts(largest):
    bank = torch.zeros(20000, 512, dtype=torch.float16)
    with largest:
        bank_logsumexp(torch.ones(2, 512), bank, 1.0)
    assert largest.elements <= 4 * 2**20 < bank.numel()


def test_heads_keep_every_core_busy(monkeypatch):
    count = _attention._count_heads
    monkeypatch.setattr(torch, 'get_num_threads', lambda: 16)
    assert count(torch.ones(256, 4), 50000) == 4
    assert count(torch.ones(8, 4), 50000) == 16
    assert count(torch.ones(8, 4), 1000) == 1
    monkeypatch.setattr(torch, 'get_num_threads', lambda: 2)
    assert count(torch.ones(256, 4), 50000) == 1


def test_fused_kernel_is_found_on_the_cpu():
    # Fails if torch drops the kernel; all results stay right.
    assert _attention._find_kernel(torch.ones(1)) is not None


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
@pytest.mark.parametrize('channels', [3, 16, 64, 512])
@pytest.mark.parametrize('length', [1, 5001, 50000])
def test_cuda_kernel_against_dense(channels, length):
    queries = torch.randn(37, channels, device='cuda', requires_grad=True)
    bank = torch.randn(length, channels, device='cuda')
    got = bank_logsumexp(queries, bank, 1.0)
    want = dense(queries, bank, 1.0)
    torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=1e-4)
    (grad,) = torch.autograd.grad(got.sum(), queries)
    (exact,) = torch.autograd.grad(want.sum(), queries)
    torch.testing.assert_close(grad, exact, rtol=1e-3, atol=1e-3)


def test_shape_error():
    with pytest.raises(FGCError, match=r'\(2, 3\) and \(5, 4\)'):
        bank_logsumexp(torch.ones(2, 3), torch.ones(5, 4), 1.0)
