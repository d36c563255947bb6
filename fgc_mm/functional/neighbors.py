"""Exact nearest neighbours in a bank that is processed in chunks.

The k best rows are in the k groups of rows with the largest maxima. So each
chunk of scores is reduced to one maximum per group, and only the k best
groups are kept. Sorting all N x D scores would take most of the time.
"""

from collections.abc import Sequence
from math import log2, sqrt

import torch
from torch import Tensor

from fgc_mm.errors import FGCError
from fgc_mm.functional._checks import check_bank
from fgc_mm.functional._chunks import is_cpu, sizes_for
from fgc_mm.functional.full_precision import full_precision

_MAX_GROUP = 32
_MIN_BLOCK = 32  # smaller products are slow
_LOW = 0xFFFFFFFF  # all of the lower 32 bits


def _pack(scores: Tensor, low: Tensor) -> Tensor:
    """int64 keys: scores in the upper, ``low`` in the lower 32 bits.

    With ``_LOW`` minus a row as ``low``, the larger of two keys has the
    larger score, or the lower row.
    """
    # The bits of a float compare like an integer if those of negative floats
    # are flipped; adding 0 makes -0.0 equal to 0.0.
    bits = (scores + 0.0).view(torch.int32)
    bits = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return torch.add(low, bits, alpha=_LOW + 1)


def rows_of_keys(keys: Tensor) -> Tensor:
    """The row indices in keys of :func:`nearest_keys`."""
    return _LOW - (keys & _LOW)


def _descending(start: int, count: int, like: Tensor) -> Tensor:
    """start, start - 1, ...; (count,)."""
    return torch.arange(start, start - count, -1, device=like.device)


def _drop_own(scores: Tensor, own: Tensor, start: int) -> None:
    """Set each query's own row to -inf, if it is in this chunk."""
    # No nonzero(), which would synchronise with the device.
    local = own.unsqueeze(1) - start
    near = local.clamp(0, scores.shape[1] - 1)
    kept = scores.gather(1, near).masked_fill_(near == local, -torch.inf)
    scores.scatter_(1, near, kept)


class _Search:
    """A buffer of scores: the k best groups so far, then the current chunk.

    If one chunk is the whole bank, the buffer is that chunk alone.

    Args:
        queries: The queries of each bank.
        k: Number of rows to find.
        length: Number of rows of every bank.
        scores: Maximum number of scores in the buffer.
    """

    def __init__(
        self, queries: Sequence[Tensor], k: int, length: int, scores: int
    ) -> None:
        self.queries = [some.float() for some in queries]
        self.counts = [len(some) for some in queries]
        self.k, self.length, count = k, length, sum(self.counts)
        self.group = _group_size(length, k)
        columns = min(max(scores // count, 1), length)
        self.chunk = -(-columns // self.group) * self.group
        self.rows = sizes_for(self.queries[0]).search_rows
        whole = self.chunk >= max(length, k * self.group)
        front = 0 if whole else k * self.group
        self.buffer = self.queries[0].new_empty(count, front + self.chunk)
        self.best = self.buffer[:, :front]
        self.scores = self.buffer[:, front:]
        self.keys: Tensor | None = None
        if self.chunk < front:
            self._keep_nothing()

    def _keep_nothing(self) -> None:
        """Start with groups of -inf, worse than any finite score."""
        self.best.fill_(-torch.inf)
        none = self.best[:, : self.k]
        self.keys = _pack(none, torch.full_like(none, _LOW, dtype=torch.int64))

    def read(
        self, banks: Sequence[Tensor], start: int, own: Tensor | None
    ) -> None:
        """Score the rows from ``start`` on, and keep the best groups."""
        stop = min(start + self.chunk, self.length)
        valid = self.scores[:, : stop - start]
        for some, bank, lines in zip(
            self.queries, banks, valid.split(self.counts), strict=True
        ):
            parts = bank[start:stop].split(self.rows)
            columns = lines.split(self.rows, 1)
            for part, scores in zip(parts, columns, strict=True):
                torch.mm(some, part.float().T, out=scores)
        if own is not None:
            _drop_own(valid, own, start)
        if stop - start < self.chunk:
            self.scores[:, stop - start :] = -torch.inf
        tops = _group_maxima(self.scores, self.group)
        low = _descending(_LOW - start // self.group, tops.shape[1], tops)
        self._keep(_pack(tops, low), last=stop == self.length)

    def _keep(self, keys: Tensor, last: bool) -> None:
        first = self.best.shape[1] // self.group if self.keys is None else 0
        if self.keys is not None:
            keys = torch.cat([self.keys, keys], 1)
        self.keys, index = keys.topk(self.k, sorted=False)
        wide = self.buffer.shape[1] // self.group
        line = torch.arange(
            first, first + len(keys) * wide, wide, device=keys.device
        )
        groups = self.buffer.view(-1, self.group)
        flat = (index + line.unsqueeze(1)).flatten()
        best = groups.index_select(0, flat).view(len(keys), -1)
        self.best = best if last else self.best.copy_(best)

    def result(self) -> Tensor:
        """The (n, k) keys, best first."""
        assert self.keys is not None  # after the last chunk
        # _LOW minus the row: from the group's index to its first row
        inner = _descending(_LOW - _LOW * self.group, self.group, self.keys)
        groups = (self.keys & _LOW).unsqueeze(2)
        low = torch.add(inner, groups, alpha=self.group).flatten(1)
        return _pack(self.best, low).topk(self.k).values


def _group_maxima(scores: Tensor, group: int) -> Tensor:
    """The largest score of each group of columns."""
    if is_cpu(scores):
        return torch.max_pool1d(scores, group)
    return scores.unflatten(1, (-1, group)).amax(2)


def _group_size(length: int, k: int) -> int:
    """The power of two that minimises the number of maxima plus members."""
    size = 2 ** round(log2(max(1.0, sqrt(length / k))))
    return min(size, _MAX_GROUP)


def check_neighbors(
    length: int, k: int, own: Tensor | None, count: int
) -> None:
    """Raise FGCError unless k and own rows are valid for this length."""
    if not 1 <= k < length:
        raise FGCError(
            f'k = {k} neighbours were requested from a bank of {length} '
            f'rows, but k must be from 1 to {length - 1}: change '
            'num_neighbors, or use a bank with more rows'
        )
    if own is not None and (own.shape != (count,) or own.is_floating_point()):
        raise FGCError(
            f'exclude is {own.dtype} of shape {tuple(own.shape)}, but one '
            f'row index per query, shape ({count},), is needed: pass the '
            'sample indices of the batch'
        )


@torch.no_grad()
def nearest_keys(
    queries: Tensor,
    bank: Tensor,
    k: int,
    exclude: Tensor | None = None,
    first: int = 0,
) -> Tensor:
    """The k best rows as int64 keys, which contain scores and rows.

    Keys of parts of a bank can be merged: a larger key is a larger product,
    or a lower row with the same product.

    Args:
        queries: (N, C).
        bank: (D, C), or a part of a bank.
        k: number of rows, 1 <= k <= D; if an excluded row leaves fewer, the
            last keys have the product -inf.
        exclude: (N,) one row of this part to leave out per query; indices
            outside the part have no effect.
        first: index of the part's first row.

    Returns:
        (N, k), best first; see :func:`rows_of_keys`.
    """
    size = _block_size(bank, k, len(queries))
    owns = [None] * len(queries) if exclude is None else exclude.split(size)
    found = [
        _search([block], [bank], k, own)
        for block, own in zip(queries.split(size), owns, strict=False)
    ]
    keys = torch.cat(found) if len(found) > 1 else found[0]
    return keys - first if first else keys


def _search(
    queries: Sequence[Tensor],
    banks: Sequence[Tensor],
    k: int,
    own: Tensor | None,
) -> Tensor:
    """Keys of the queries of all banks, concatenated."""
    length = len(banks[0])
    whole = sum(map(len, queries)) * length
    sizes = sizes_for(banks[0])
    scores = sizes.search_scores
    if whole <= sizes.search_whole:
        scores = max(scores, whole)
    with full_precision(banks[0]):
        search = _Search(queries, k, length, scores)
        for start in range(0, length, search.chunk):
            search.read(banks, start, own)
        return search.result()


def _block_size(bank: Tensor, k: int, count: int) -> int:
    """Number of queries, out of ``count``, processed at a time."""
    sizes = sizes_for(bank)
    groups = k * _group_size(len(bank), k)
    most = min(sizes.search_queries, sizes.search_scores // groups)
    whole = sizes.search_whole // len(bank)
    if whole >= _MIN_BLOCK:
        most = min(sizes.search_queries, whole)
    blocks = -(-count // max(1, most))
    return max(1, -(-count // max(1, blocks)))  # of equal sizes


def nearest_neighbors(
    queries: Tensor, bank: Tensor, k: int, exclude: Tensor | None = None
) -> Tensor:
    """The k rows of a bank with the largest inner products, best first.

    Exact, computed in float32 (with the TF32 of
    ``torch.set_float32_matmul_precision`` if that is on); of equal products,
    also for the k-th neighbour, the lower row comes first. Scores are
    computed for a chunk of the bank at a time (on a CPU up to 16 MiB, with
    about 45 MiB of scratch memory in all; on an accelerator 256 MiB, with
    1 GiB in all). Source:
    "Feature-Gate Coupling for Dynamic Network Pruning" (arXiv 2111.14302),
    section 3.3.

    Args:
        queries: (N, C), any floating dtype.
        bank: (D, C), any floating dtype; finite values.
        k: number of neighbours, 1 <= k < D.
        exclude: (N,) one row per query to leave out (the query's own).

    Returns:
        (N, k) int64 row indices.

    Raises:
        FGCError: k is out of range, or shapes or devices do not match.
    """
    check_bank(queries, bank)
    check_neighbors(len(bank), k, exclude, len(queries))
    return rows_of_keys(nearest_keys(queries, bank, k, exclude))


@torch.no_grad()
def nearest_neighbors_of_each(
    queries: Sequence[Tensor],
    banks: Sequence[Tensor],
    k: int,
    exclude: Tensor | None = None,
) -> list[Tensor]:
    """:func:`nearest_neighbors` in several banks of the same length.

    On an accelerator this takes as many operations as for a single bank.

    Args:
        queries: For each bank (N, C), each with its own C.
        banks: (D, C).
        k: number of neighbours, 1 <= k < D.
        exclude: (N,) one row of every bank to leave out per query.

    Returns:
        For each bank (N, k) int64 row indices.

    Raises:
        FGCError: as :func:`nearest_neighbors`.
    """
    total = sum(map(len, queries))
    together = total <= _block_size(banks[0], k, total)
    if is_cpu(banks[0]) or not together or len(set(map(len, banks))) > 1:
        return [
            nearest_neighbors(some, bank, k, exclude)
            for some, bank in zip(queries, banks, strict=True)
        ]
    for some, bank in zip(queries, banks, strict=True):
        check_bank(some, bank)
        check_neighbors(len(bank), k, exclude, len(some))
    own = None if exclude is None else exclude.repeat(len(banks))
    keys = _search(queries, banks, k, own)
    return list(rows_of_keys(keys).split([len(some) for some in queries]))
