import pytest
import torch

from fgc_mm.errors import FGCError
from fgc_mm.functional import (
    _chunks,
    nearest_neighbors,
    neighborhood_agreement,
    neighbors,
)


def set_cpu(monkeypatch, **sizes):
    monkeypatch.setattr(_chunks, 'CPU', _chunks.CPU._replace(**sizes))


def naive(queries, bank, k, exclude=None):
    """Python's sort: by score descending, then by row ascending."""
    lines = []
    scores = queries.double() @ bank.double().T
    for i, line in enumerate(scores.tolist()):
        rows = [
            j for j in range(len(line)) if exclude is None or j != exclude[i]
        ]
        rows.sort(key=lambda j, line=line: (-line[j], j))
        lines.append(rows[:k])
    return torch.tensor(lines)


def whole_numbers(rows, dim, seed, top=3):
    """Small integers: exact products in every dtype, and many ties."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-top, top, (rows, dim), generator=generator).float()


# Chunks of one group, of a few, and of the whole bank.
CASES = [
    (scores, length, k)
    for scores in (1, 64, 1000, 2**21)
    for length in (2, 31, 32, 33, 257, 1000)
    for k in (1, 3, 30, 256)
    if k < length and (scores > 1 or length < 300)
]


@pytest.mark.parametrize(('scores', 'length', 'k'), CASES)
@pytest.mark.parametrize('own', [False, True])
@pytest.mark.parametrize('whole', [0, 2**20])
def test_against_sort_with_ties(monkeypatch, scores, length, k, own, whole):
    set_cpu(monkeypatch, search_scores=scores, search_whole=whole)
    set_cpu(monkeypatch, search_rows=100)
    bank = whole_numbers(length, 4, 1)
    queries = whole_numbers(6, 4, 2)
    exclude = torch.arange(6) * (length - 1) // 5 if own else None
    got = nearest_neighbors(queries, bank, k, exclude)
    assert got.dtype == torch.int64
    assert torch.equal(got, naive(queries, bank, k, exclude))


@pytest.mark.parametrize('group', [1, 2, 16, 64])
@pytest.mark.parametrize('whole', [0, 2**20])
def test_every_group_size(monkeypatch, group, whole):
    monkeypatch.setattr(neighbors, '_group_size', lambda *_: group)
    set_cpu(monkeypatch, search_scores=700, search_whole=whole)
    bank, queries = whole_numbers(333, 3, 5), whole_numbers(5, 3, 6)
    for k in (1, 7, 100, 332):
        got = nearest_neighbors(queries, bank, k)
        assert torch.equal(got, naive(queries, bank, k))


@pytest.mark.parametrize(
    'dtype', [torch.float32, torch.bfloat16, torch.float16]
)
def test_real_values_and_low_precision_banks(dtype):
    torch.manual_seed(0)
    bank = torch.randn(5000, 20).to(dtype)
    queries = torch.randn(9, 20)
    own = torch.randint(0, 5000, (9,))
    got = nearest_neighbors(queries, bank, 50, own)
    scores = queries.double() @ bank.double().T
    scores[torch.arange(9), own] = -torch.inf
    want = scores.topk(50)
    torch.testing.assert_close(
        scores.gather(1, got), want.values, rtol=1e-5, atol=1e-5
    )
    assert (got != own[:, None]).all()
    assert all(len(set(line)) == 50 for line in got.tolist())


def test_half_queries_are_computed_in_float32():
    torch.manual_seed(0)
    bank, queries = torch.randn(3000, 32), torch.randn(4, 32).bfloat16()
    want = nearest_neighbors(queries.float(), bank, 20)
    assert torch.equal(nearest_neighbors(queries, bank, 20), want)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert torch.equal(nearest_neighbors(queries, bank, 20), want)


def test_all_scores_equal_gives_the_lowest_rows():
    bank = torch.randn(500, 3)
    got = nearest_neighbors(torch.zeros(2, 3), bank, 4, torch.tensor([1, 9]))
    assert got.tolist() == [[0, 2, 3, 4], [0, 1, 2, 3]]


def test_negative_zero_ties_with_zero():
    scores = torch.tensor([-0.0, 0.0, -0.0, 1e-30, -1e-30])
    keys = neighbors._pack(scores, neighbors._LOW - torch.arange(5))
    assert keys.argsort(descending=True).tolist() == [3, 0, 1, 2, 4]


def test_only_negative_scores_and_few_rows():
    # Fewer groups than k: what is kept at first must never be chosen.
    bank = -torch.arange(1.0, 41.0).unsqueeze(1)
    got = nearest_neighbors(torch.ones(1, 1), bank, 39)
    assert got.tolist() == [list(range(39))]


@pytest.mark.parametrize('most', [7, 1024])
def test_many_queries_are_split(monkeypatch, most):
    # 40 queries with all of the 90 rows at a time, if not only 7
    set_cpu(monkeypatch, search_queries=most, search_whole=90 * 40)
    bank, queries = whole_numbers(90, 3, 1), whole_numbers(50, 3, 2)
    own = torch.arange(50)
    got = nearest_neighbors(queries, bank, 5, own)
    assert torch.equal(got, naive(queries, bank, 5, own))
    without = nearest_neighbors(queries, bank, 5)
    assert torch.equal(without, naive(queries, bank, 5))


def test_no_dense_scores(largest):
    queries, bank = torch.randn(256, 4), torch.randn(50000, 4)
    with largest:
        nearest_neighbors(queries, bank, 200, torch.arange(256))
    # 32 MiB of float32, against 49 MiB for 256 x 50,000.
    assert largest.elements < 8 * 2**20


def test_no_gradient_and_strided_inputs():
    bank = whole_numbers(64, 6, 1).T.contiguous().T
    queries = whole_numbers(5, 12, 2)[:, ::2].requires_grad_()
    got = nearest_neighbors(queries, bank, 3)
    assert torch.equal(got, naive(queries.detach(), bank, 3))
    assert not got.requires_grad


@pytest.mark.parametrize('k', [0, 10, 11])
@pytest.mark.parametrize('own', [None, torch.tensor([0])])
def test_k_error(k, own):
    with pytest.raises(FGCError, match=f'k = {k} .* bank of 10 rows.* 1 to 9'):
        nearest_neighbors(torch.ones(1, 2), torch.ones(10, 2), k, own)


@pytest.mark.parametrize(
    'own', [torch.zeros(3, dtype=torch.int64), torch.zeros(2)]
)
def test_exclude_error(own):
    with pytest.raises(FGCError, match=r'exclude is .* one row index per'):
        nearest_neighbors(torch.ones(2, 2), torch.ones(9, 2), 3, own)


@pytest.mark.parametrize(
    ('queries', 'bank', 'text'),
    [
        ((2, 3), (5, 4), 'have the same number of channels'),
        ((2, 3, 1, 1), (5, 3), 'pool the features'),
        ((0, 3), (5, 3), 'at least one row'),
        ((2, 3), (0, 3), 'at least one row'),
    ],
)
def test_shape_errors(queries, bank, text):
    with pytest.raises(FGCError, match=text):
        nearest_neighbors(torch.ones(queries), torch.ones(bank), 1)


def test_device_error():
    with pytest.raises(FGCError, match='both must be on one device'):
        nearest_neighbors(torch.ones(2, 3, device='meta'), torch.ones(5, 3), 1)


@pytest.mark.parametrize('k', [1, 2, 17])
def test_agreement_against_sets(k):
    torch.manual_seed(k)
    first, second = (
        torch.stack([torch.randperm(40)[:k] for _ in range(30)])
        for _ in range(2)
    )
    shares = [
        len(set(a) & set(b)) / k
        for a, b in zip(first.tolist(), second.tolist(), strict=True)
    ]
    got = neighborhood_agreement(first, second)
    assert got.shape == () and got.dtype == torch.float32
    assert abs(got.item() - sum(shares) / 30) < 1e-6
    assert neighborhood_agreement(first, first.flip(1)) == 1
    assert neighborhood_agreement(first, second + 100) == 0


def test_agreement_allocates_nothing_large(largest):
    sets = torch.stack([torch.randperm(400) for _ in range(8)])
    with largest:
        neighborhood_agreement(sets, sets)
    assert largest.elements <= sets.numel()


def test_agreement_error():
    with pytest.raises(FGCError, match=r'\(2, 3\) and \(2, 4\), but both'):
        neighborhood_agreement(
            torch.zeros(2, 3, dtype=torch.int64),
            torch.zeros(2, 4, dtype=torch.int64),
        )
