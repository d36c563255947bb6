"""Contrastive loss against a bank that is sharded over processes."""

import torch
from torch import Tensor

from fgc_mm.functional._attention import attend, merge
from fgc_mm.functional._known_gradient import with_gradient
from fgc_mm.functional.contrast import (
    add_eps,
    check_contrast,
    score_in_chunks,
)
from fgc_mm.functional.full_precision import full_precision
from fgc_mm.memory.gather import gather_rows, row_counts
from fgc_mm.memory.shard import Shard


def _owned_score(
    queries: Tensor, rows: Tensor, positives: Tensor, scale: float, form: str
) -> tuple[Tensor, Tensor]:
    """Numerator (n,) and slope (n, C) of the positives on this process.

    Positives are indexed from the first row on this process; those outside
    its rows are on others. A query without a positive here has the neutral
    numerator and slope 0.
    """
    here = (positives >= 0) & (positives < len(rows))
    line, column = here.nonzero(as_tuple=True)
    owned = rows[positives[line, column]].to(queries.dtype)
    scores = (owned * queries[line]).sum(1) * scale
    if form == 'sum_log':
        share = torch.ones_like(scores)
        score = scores.new_zeros(len(queries)).index_add_(0, line, scores)
    else:
        table = torch.full_like(positives, -torch.inf, dtype=scores.dtype)
        table[line, column] = scores
        score = table.logsumexp(1)
        share = (scores - score[line]).exp()
    owned.mul_((share * scale).unsqueeze(1))
    slope = torch.zeros_like(queries).index_add_(0, line, owned)
    return score, slope


def _join(
    results: Tensor, terms: int, scale: float, form: str
) -> tuple[Tensor, Tensor]:
    """Value (n,) and gradient (n, C) from all shards' (W, n, 2 C + 2)."""
    dim = results.shape[2] // 2 - 1
    out, slope, lse, score = results.split([dim, dim, 1, 1], 2)
    out, total = merge(out, lse.squeeze(2))
    if form == 'sum_log':
        slope, score = slope.sum(0), score.sum(0).squeeze(1)
    else:
        slope, score = merge(slope, score.squeeze(2))
    return terms * total - score, out * (terms * scale) - slope


@torch.no_grad()
def _costs(
    queries: Tensor,
    rows: Tensor,
    positives: Tensor,
    shard: Shard,
    scale: float,
    form: str,
) -> tuple[Tensor, Tensor]:
    """Each query's cost (n,) and its gradient (n, C).

    The output of attention is the gradient of its log-sum-exp, so the
    exchanged results contain the whole gradient, and the backward pass, in
    which DDP runs its collectives, needs no further ones.
    """
    dtype = torch.promote_types(queries.dtype, torch.float32)
    counts = row_counts(queries)
    all_queries = gather_rows(queries.to(dtype), counts)
    index = gather_rows(positives, counts) - shard.start
    with full_precision(queries):
        out, lse = attend(all_queries, rows, scale)
        score, slope = score_in_chunks(
            lambda some, index: _owned_score(some, rows, index, scale, form),
            all_queries,
            rows,
            index,
        )
        parts = [out, slope, lse.unsqueeze(1), score.unsqueeze(1)]
        results = shard.return_results(torch.cat(parts, 1), counts)
        terms = positives.shape[1] if form == 'sum_log' else 1
        return _join(results, terms, scale, form)


def sharded_neighbor_contrast(
    queries: Tensor,
    rows: Tensor,
    shard: Shard,
    positives: Tensor,
    temperature: float,
    form: str = 'log_sum',
    eps: float = 0.0,
) -> Tensor:
    """:func:`neighbor_contrast` with rows sharded over processes.

    Collective: all processes call it together. Each contrasts the queries of
    all processes with its own rows; log-sum-exps and their gradients (means
    of rows) are merged exactly. Four collectives exchange the number of
    queries of each process and, for all N queries, (N, C) queries, (N, P)
    positives and (N, 2 C + 2) results; the backward pass needs none.

    Args:
        queries: (n, C), this process's own, the only input with a gradient.
        rows: (stop - start, C), the rows on this process; a constant.
        shard: describes them.
        positives: (n, P) int64 row indices in the whole bank.
        temperature: the contrast temperature, > 0 (no unit).
        form: 'log_sum' or 'sum_log' (about P times larger).
        eps: added to the positives' summed probability.

    Returns:
        (), the mean over this process's queries, in nats. If all processes
        have equally many queries, DDP's mean gradient equals that of a single
        process with all queries and the whole bank.

    Raises:
        FGCError: as :func:`neighbor_contrast`.
    """
    check_contrast(
        queries, rows, positives, temperature, form, eps, shard.length
    )
    costs = _costs(queries, rows, positives, shard, 1 / temperature, form)
    return add_eps(with_gradient(queries, *costs), eps).mean()
