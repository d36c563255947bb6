"""Exact nearest neighbours in a bank that is read in chunks.

The k best rows lie in the k groups of rows with the best maxima. So a chunk
of scores is reduced to one maximum per group, and only the k best groups are
carried on: sorting N x D scores is most of the time otherwise.
"""

from math import log2, sqrt

import torch
from torch import Tensor

from fgc_mm.errors import FGCError
from fgc_mm.functional._checks import check_bank
from fgc_mm.functional.full_precision import full_precision

# Scores held at a time: 8 MiB of float32, measured fastest from 4 to 32 MiB.
_SCORES = 2 * 2**20
_MAX_BLOCK, _MAX_GROUP, _LOW = 1024, 32, 0xFFFFFFFF


def _keys(scores: Tensor, index: Tensor) -> Tensor:
    """int64 keys in the order of (score descending, index ascending)."""
    # The bits of a float compare like an integer once the negative ones are
    # flipped; adding 0 makes -0.0 equal to 0.0.
    bits = (scores + 0.0).view(torch.int32)
    bits = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return (bits.long() << 32) | (_LOW - index)


def rows_of_keys(keys: Tensor) -> Tensor:
    """The row numbers in keys of :func:`nearest_keys`."""
    return _LOW - (keys & _LOW)


def _drop_own(scores: Tensor, own: Tensor, start: int) -> None:
    """Set each line's own row to -inf, where it lies in this chunk."""
    # No nonzero(): the device would have to wait for the count.
    local = own.unsqueeze(1) - start
    inside = (local >= 0) & (local < scores.shape[1])
    local = local.clamp(0, scores.shape[1] - 1)
    kept = scores.gather(1, local).masked_fill_(inside, -torch.inf)
    scores.scatter_(1, local, kept)


class _Search:
    """One block of queries: k groups kept in front, a chunk behind them."""

    def __init__(self, queries: Tensor, k: int, length: int) -> None:
        self.queries, self.k, count = queries.float(), k, len(queries)
        self.group = _group_size(length, k)
        columns = min(max(_SCORES // count, 1), length)
        self.chunk = -(-columns // self.group) * self.group
        front = k * self.group
        self.buffer = self.queries.new_empty(count, front + self.chunk)
        self.best = self.buffer[:, :front].fill_(-torch.inf)
        self.scores = self.buffer[:, front:]
        # Nothing kept yet: -inf, which no finite score loses to.
        none = self.queries.new_full((count, k), -torch.inf)
        self.keys = _keys(none, torch.zeros_like(none, dtype=torch.int64))

    def read(self, rows: Tensor, start: int, own: Tensor | None) -> None:
        """Score the rows start, start + 1, ... and keep the best groups."""
        valid = self.scores[:, : len(rows)]
        torch.mm(self.queries, rows.float().T, out=valid)
        if own is not None:
            _drop_own(valid, own, start)
        self.scores[:, len(rows) :] = -torch.inf
        tops = torch.max_pool1d(self.scores, self.group)
        first = start // self.group
        index = torch.arange(first, first + tops.shape[1], device=tops.device)
        self._keep(torch.cat([self.keys, _keys(tops, index)], 1))

    def _keep(self, keys: Tensor) -> None:
        self.keys, place = keys.topk(self.k, sorted=False)
        line = torch.arange(len(keys), device=keys.device).unsqueeze(1)
        flat = (place + line * keys.shape[1]).flatten()
        groups = self.buffer.view(-1, self.group)
        self.best.copy_(groups.index_select(0, flat).view_as(self.best))

    def result(self) -> Tensor:
        """The (n, k) keys, best first."""
        start = rows_of_keys(self.keys).unsqueeze(2) * self.group
        inner = torch.arange(self.group, device=start.device)
        index = (start + inner).flatten(1)
        return _keys(self.best, index).topk(self.k).values


def _group_size(length: int, k: int) -> int:
    """The power of two nearest to the least work, maxima plus members."""
    size = 2 ** round(log2(max(1.0, sqrt(length / k))))
    return min(size, _MAX_GROUP)


def check_neighbors(
    length: int, k: int, own: Tensor | None, count: int
) -> None:
    """Raise FGCError unless k and own rows fit a bank of that length."""
    if not 1 <= k < length:
        raise FGCError(
            f'k = {k} neighbours were asked of a bank of {length} rows, '
            f'but k must be from 1 to {length - 1}: change num_neighbors, '
            'or use a bank with more rows'
        )
    if own is not None and (own.shape != (count,) or own.is_floating_point()):
        raise FGCError(
            f'exclude is {own.dtype} of shape {tuple(own.shape)}, but one '
            f'row number per query, shape ({count},), is needed: pass the '
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
    """The k best rows as int64 keys, which order scores and rows at once.

    Keys of parts of a bank can be merged: a larger key is a larger product,
    or at the same product a lower row.

    Args:
        queries: (N, C).
        bank: (D, C), or a part of a bank.
        k: how many, 1 <= k <= D; where an excluded row leaves less, the
            last keys have the product -inf.
        exclude: (N,) one row of this part to leave out per query; numbers
            outside the part leave out none.
        first: what the part's first row is called.

    Returns:
        (N, k), best first; see :func:`rows_of_keys`.
    """
    per_line = k * _group_size(len(bank), k)
    size = max(1, min(_MAX_BLOCK, _SCORES // per_line))
    owns = [None] * len(queries) if exclude is None else exclude.split(size)
    found = []
    with full_precision(queries):
        for block, own in zip(queries.split(size), owns, strict=False):
            search = _Search(block, k, len(bank))
            for start in range(0, len(bank), search.chunk):
                rows = bank[start : start + search.chunk]
                search.read(rows, start, own)
            found.append(search.result())
    return torch.cat(found) - first


def nearest_neighbors(
    queries: Tensor, bank: Tensor, k: int, exclude: Tensor | None = None
) -> Tensor:
    """The k rows of a bank with the largest inner products, best first.

    Exact, computed in float32. Among equal products the lower row comes
    first, at the k-th place too. Scores are held for a chunk of the bank at
    a time (8 MiB, some 30 MiB of scratch in all). Source: "Feature-Gate
    Coupling for Dynamic Network Pruning" (arXiv 2111.14302), section 3.3.

    Args:
        queries: (N, C), any floating dtype.
        bank: (D, C), any floating dtype; finite values.
        k: how many neighbours, 1 <= k < D.
        exclude: (N,) one row per query to leave out (the query's own).

    Returns:
        (N, k) int64 row numbers.

    Raises:
        FGCError: k is out of range, or shapes or devices do not fit.
    """
    check_bank(queries, bank)
    check_neighbors(len(bank), k, exclude, len(queries))
    return rows_of_keys(nearest_keys(queries, bank, k, exclude))


def neighborhood_agreement(first: Tensor, second: Tensor) -> Tensor:
    """Mean share of neighbours that two index sets have in common.

    Args:
        first: (N, k) int64, distinct within a line.
        second: (N, k) int64, distinct within a line.

    Returns:
        () float32 in [0, 1]: 1 where each line names the same rows, in any
        order.

    Raises:
        FGCError: the shapes differ, or are not (N, k).
    """
    if first.shape != second.shape or first.ndim != 2 or not first.numel():
        raise FGCError(
            f'neighbour sets have shapes {tuple(first.shape)} and '
            f'{tuple(second.shape)}, but both must be the same (N, k): '
            'search both spaces with the same queries and num_neighbors'
        )
    ordered = second.sort(1).values
    place = torch.searchsorted(ordered, first.contiguous())
    place.clamp_(max=first.shape[1] - 1)
    return (ordered.gather(1, place) == first).float().mean()
