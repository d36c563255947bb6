"""Exact nearest neighbours in a bank that is sharded over processes."""

import torch
from torch import Tensor

from fgc_mm.functional._checks import check_bank
from fgc_mm.functional.neighbors import (
    check_neighbors,
    nearest_keys,
    rows_of_keys,
)
from fgc_mm.memory.gather import gather_rows, row_counts
from fgc_mm.memory.shard import Shard


@torch.no_grad()
def sharded_nearest_neighbors(
    queries: Tensor,
    rows: Tensor,
    shard: Shard,
    k: int,
    exclude: Tensor | None = None,
) -> Tensor:
    """:func:`nearest_neighbors` with rows sharded over processes.

    Collective: all processes call it together. Each searches its own rows
    for the queries of all processes; the k best of these results are the k
    best of the bank. Equal products are sorted by row in the whole bank.

    Args:
        queries: (n, C), this process's own; n may differ between processes.
        rows: (stop - start, C), the rows on this process.
        shard: describes them.
        k: number of neighbours, 1 <= k < D.
        exclude: (n,) one row of the whole bank per query to leave out.

    Returns:
        (n, k) int64 row indices in the whole bank.

    Raises:
        FGCError: k is out of range, or shapes or devices do not match.
    """
    check_bank(queries, rows)
    check_neighbors(shard.length, k, exclude, len(queries))
    counts = row_counts(queries)
    all_queries = gather_rows(queries, counts)
    if exclude is not None:
        exclude = gather_rows(exclude, counts) - shard.start
    few = min(k, len(rows))
    keys = nearest_keys(all_queries, rows, few, exclude, shard.start)
    short = keys.new_full((len(keys), k - few), torch.iinfo(keys.dtype).min)
    keys = shard.return_results(torch.cat([keys, short], 1), counts)
    candidates = keys.transpose(0, 1).flatten(1)
    return rows_of_keys(candidates.topk(k).values)
