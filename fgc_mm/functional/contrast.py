"""Contrastive loss of a vector's neighbours against a whole bank."""

from collections.abc import Callable
from math import log

import torch
from torch import Tensor

from fgc_mm.errors import FGCError, check_choice
from fgc_mm.functional._checks import check_bank
from fgc_mm.functional._chunks import sizes_for
from fgc_mm.functional._known_gradient import with_gradient
from fgc_mm.functional.bank_logsumexp import bank_logsumexp
from fgc_mm.functional.full_precision import full_precision
from fgc_mm.functional.number import is_number

FORMS = 'log_sum', 'sum_log'


def _score(
    queries: Tensor, rows: Tensor, scale: float, form: str
) -> tuple[Tensor, Tensor]:
    """Numerator (n,) and its gradient (n, C) from rows (n, P, C)."""
    logits = torch.bmm(rows, (queries * scale).unsqueeze(2)).squeeze(2)
    if form == 'sum_log':
        return logits.sum(1), rows.sum(1).mul_(scale)
    share = (logits.softmax(1) * scale).unsqueeze(1)
    return logits.logsumexp(1), torch.bmm(share, rows).squeeze(1)


def score_in_chunks(
    score: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    queries: Tensor,
    bank: Tensor,
    positives: Tensor,
) -> tuple[Tensor, Tensor]:
    """Numerator (N,) and its gradient (N, C), for some queries at a time.

    Args:
        score: Computes both for some queries and their positives.
        queries: (N, C).
        bank: (D, C), from which the positives are gathered.
        positives: (N, P).
    """
    elements = positives.shape[1] * bank.shape[1]
    size = max(1, sizes_for(bank).gathered // elements)
    pairs = zip(queries.split(size), positives.split(size), strict=True)
    parts = [score(some, index) for some, index in pairs]
    if len(parts) == 1:
        return parts[0]
    scores, slopes = zip(*parts, strict=True)
    return torch.cat(scores), torch.cat(slopes)


def check_contrast(
    queries: Tensor,
    bank: Tensor,
    positives: Tensor,
    temperature: float,
    form: str,
    eps: float,
    length: int,
) -> None:
    """Raise FGCError for bad arguments; length: of the whole bank."""
    check_bank(queries, bank)
    check_eps(eps, form)
    check_choice(f'form={form!r} of a contrast', form, FORMS)
    if not (is_number(temperature) and temperature > 0):
        raise FGCError(
            f'temperature {temperature!r} is not positive, so the softmax is '
            'undefined: use 0.07, or another value above 0'
        )
    fits = positives.ndim == 2 and len(positives) == len(queries)
    if not fits or positives.dtype != torch.int64 or not positives.numel():
        raise FGCError(
            f'positives are {positives.dtype} of shape '
            f'{tuple(positives.shape)}, but int64 of shape '
            f'({len(queries)}, P) with P >= 1 is needed: pass row indices of '
            'the bank, one row per query'
        )
    _check_range(positives, length)


def check_eps(eps: float, form: str) -> None:
    """Raise FGCError for an eps that the form does not allow."""
    if not (is_number(eps) and 0 <= eps < 1):
        raise FGCError(
            f'eps={eps!r} is outside [0, 1), but it is added to a '
            'probability: use 1e-7 (published code) or 0 (paper)'
        )
    if eps and form == 'sum_log':
        raise FGCError(
            f"eps={eps} with form='sum_log' is not defined, but eps belongs "
            "to the logarithm of 'log_sum': use eps=0 or form='log_sum'"
        )


def add_eps(cost: Tensor, eps: float) -> Tensor:
    """``-log(s + eps)`` from ``cost = -log s``, elementwise.

    Its gradient is that of ``cost`` times ``s / (s + eps)``: it vanishes for
    samples whose positives have almost no probability. Exact for every s,
    since it is computed in log space.
    """
    if eps == 0:
        return cost
    return -torch.logaddexp(-cost, torch.full_like(cost, log(eps)))


def _check_range(positives: Tensor, length: int) -> None:
    # On an accelerator index_select checks it; reading here would synchronise.
    if positives.device.type != 'cpu':
        return
    low, high = (int(end) for end in positives.aminmax())
    if low < 0 or high >= length:
        wrong = low if low < 0 else high
        raise FGCError(
            f'positive {wrong} is outside the bank ({length} rows), but '
            'positives are row indices: take them from nearest_neighbors on '
            'a bank of the same length'
        )


def neighbor_contrast(
    queries: Tensor,
    bank: Tensor,
    positives: Tensor,
    temperature: float,
    form: str = 'log_sum',
    eps: float = 0.0,
) -> Tensor:
    """Contrast each query's positive rows with all rows of the bank.

    With ``z_ij = queries_i . bank_j / temperature`` and ``p_i`` the softmax
    of ``z_i`` over all D rows, ``log_sum`` is ``-log(eps + sum_{j in P}
    p_ij)`` and ``sum_log`` is ``-sum_{j in P} log p_ij``; mean over the
    batch. Computed from log-sum-exps, so it does not saturate. If s is the
    positives' summed probability, eps scales a query's gradient by
    s / (s + eps): a query whose positives are still improbable gets almost
    no gradient. Source: "Feature-Gate Coupling for Dynamic Network Pruning"
    (arXiv 2111.14302), equation 8 (``sum_log``), and its published code
    (``log_sum``).

    Args:
        queries: (N, C), the only input with a gradient; half precision is
            computed in float32.
        bank: (D, C), any floating dtype.
        positives: (N, P) int64 row indices, distinct within a row (a
            repeated index counts twice).
        temperature: the contrast temperature, > 0 (no unit).
        form: 'log_sum' or 'sum_log' (about P times larger).
        eps: added to s, in [0, 1): 1e-7 in the published code; 0 for
            'sum_log'.

    Returns:
        (), in nats, float32 (float64 for float64 queries).

    Raises:
        FGCError: shapes, devices, form, eps, temperature or row indices are
            invalid (row indices are checked on the CPU only).
    """
    check_contrast(queries, bank, positives, temperature, form, eps, len(bank))
    # round the sum of both gradients to half precision, not each of them
    queries = queries.to(torch.promote_types(queries.dtype, torch.float32))
    scale = 1 / temperature
    total = bank_logsumexp(queries, bank, scale)

    def score_of(some: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        rows = bank.index_select(0, index.flatten()).to(some.dtype)
        rows = rows.view(*index.shape, bank.shape[1])
        return _score(some, rows, scale, form)

    with torch.no_grad(), full_precision(queries):
        score, slope = score_in_chunks(score_of, queries, bank, positives)
    score = with_gradient(queries, score, slope)
    if form == 'sum_log':
        total = positives.shape[1] * total
    return add_eps(total - score, eps).mean()
