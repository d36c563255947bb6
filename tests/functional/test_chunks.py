"""The ways of an accelerator, taken on the CPU, and counted without data."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fgc_mm.functional import (
    _attention,
    _chunks,
    bank_logsumexp,
    nearest_neighbors,
    nearest_neighbors_of_each,
    neighbor_contrast,
    neighbors,
)


@pytest.fixture
def elsewhere(monkeypatch):
    """As if the CPU were an accelerator."""
    for module in (_chunks, neighbors, _attention):
        monkeypatch.setattr(module, 'is_cpu', lambda _: False)


def set_sizes(monkeypatch, **sizes):
    changed = _chunks.ACCELERATOR._replace(**sizes)
    monkeypatch.setattr(_chunks, 'ACCELERATOR', changed)


class Calls(TorchDispatchMode):
    """Counts operations other than views; records sizes of attention."""

    def __init__(self):
        super().__init__()
        self.count, self.elements = 0, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += not func.is_view
        if 'attention' in func.overloadpacket.__name__:
            self.elements.append(args[1].numel())
        return func(*args, **(kwargs or {}))


def data(length, dims=(5, 3), count=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    banks = [torch.randn(length, dim, generator=generator) for dim in dims]
    queries = [torch.randn(count, dim, generator=generator) for dim in dims]
    return queries, banks, torch.arange(count) * (length - 1) // (count - 1)


@pytest.mark.usefixtures('elsewhere')
@pytest.mark.parametrize('scores', [1, 300, 5000, 2**26])
@pytest.mark.parametrize('length', [33, 500])
@pytest.mark.parametrize('own', [False, True])
def test_neighbors_of_several_banks(monkeypatch, scores, length, own):
    queries, banks, exclude = data(length)
    exclude = exclude if own else None
    with monkeypatch.context() as patch:
        for module in (_chunks, neighbors):
            patch.setattr(module, 'is_cpu', lambda _: True)
        want = [
            nearest_neighbors(some, bank, 7, exclude)
            for some, bank in zip(queries, banks)
        ]
    set_sizes(monkeypatch, search_scores=scores)
    got = nearest_neighbors_of_each(queries, banks, 7, exclude)
    assert all(map(torch.equal, got, want))


@pytest.mark.usefixtures('elsewhere')
def test_banks_of_several_lengths_and_ties():
    queries, banks, _ = data(90)
    banks[1] = banks[1][:40]
    got = nearest_neighbors_of_each(queries, banks, 3)
    for some, bank, rows in zip(queries, banks, got):
        assert torch.equal(rows, nearest_neighbors(some, bank, 3))
    zeros = [torch.zeros(2, 3)] * 2
    banks = [torch.randn(500, 3)] * 2
    got = nearest_neighbors_of_each(zeros, banks, 4, torch.tensor([1, 9]))
    for rows in got:
        assert rows.tolist() == [[0, 2, 3, 4], [0, 1, 2, 3]]


@pytest.mark.usefixtures('elsewhere')
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('part', [64 * 23, 100 * 23, 2**30])
def test_parts_below_the_limit_of_32_bits(monkeypatch, dtype, part):
    set_sizes(monkeypatch, attention_part=part, attention_cast=part)
    torch.manual_seed(0)
    queries = torch.randn(4, 20, requires_grad=True)
    bank = torch.randn(5001, 20).to(dtype)
    with Calls() as calls:
        got = bank_logsumexp(queries, bank, 0.5)
    assert calls.elements and max(calls.elements) <= part
    want = (queries.double() @ bank.double().T * 0.5).logsumexp(1)
    torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=1e-5)
    grads = [torch.autograd.grad(x.sum(), queries)[0] for x in (got, want)]
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures('elsewhere')
def test_heads_leave_no_rows_over():
    count = _attention._count_heads
    assert 50_000 % count(torch.ones(256, 64), 50_000) == 0
    assert count(torch.ones(256, 64), 1_281_167) > 32  # has no divisor near
    assert count(torch.ones(256, 64), 1) == 1


@pytest.mark.usefixtures('elsewhere')
def test_contrast_without_a_kernel(monkeypatch):
    queries, banks, _ = data(300)
    positives = torch.arange(12).view(6, 2)
    want = neighbor_contrast(queries[0], banks[0], positives, 0.5)
    monkeypatch.setattr(_attention, '_find_kernel', lambda _: None)
    set_sizes(monkeypatch, attention_scores=100, gathered=20)
    got = neighbor_contrast(queries[0], banks[0], positives, 0.5)
    torch.testing.assert_close(got, want)


def launches(length, dim, count=256, dtype=torch.float32):
    """Operations of a search, and of a log-sum-exp, without data."""
    queries = torch.empty(count, dim, device='meta')
    bank = torch.empty(length, dim, device='meta', dtype=dtype)
    with Calls() as search:
        nearest_neighbors(queries, bank, 200)
    with Calls() as attention:
        bank_logsumexp(queries, bank, 1.0)
    return search.count, attention.count


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_operations_on_an_accelerator(dtype):
    small = launches(50_000, 64, dtype=dtype)
    large = launches(1_281_167, 512, dtype=dtype)
    assert small[0] <= 40 and small[1] <= 12
    # 328 M scores, of which 64 M are held at a time; 656 M elements, cast in
    # parts where they are bf16
    assert large[0] <= 200 and large[1] <= 50


def test_the_scores_at_a_time_are_read_in_every_call(monkeypatch):
    operations, _ = launches(50_000, 64)
    set_sizes(monkeypatch, search_scores=2**18)
    assert launches(50_000, 64)[0] > 5 * operations
