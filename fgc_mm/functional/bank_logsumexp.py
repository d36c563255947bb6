"""Log-sum-exp over a whole bank, without an N x D matrix."""

import torch
from torch import Tensor

from fgc_mm.functional._attention import attend
from fgc_mm.functional._checks import check_bank
from fgc_mm.functional._known_gradient import with_gradient
from fgc_mm.functional.full_precision import full_precision


def bank_logsumexp(queries: Tensor, bank: Tensor, scale: float) -> Tensor:
    """Log-sum-exp of each query's scaled products with every row of a bank.

    ``lse_i = log sum_j exp(scale * queries_i . bank_j)``. The denominator is
    attention with the bank as keys and values (Dao et al., "FlashAttention",
    NeurIPS 2022, algorithm 1, returns it): ``d lse_i / d queries_i`` is the
    attention output times ``scale``. Exact and free of overflow; the N x D
    scores never exist at once, and only (N, C) is kept for the backward pass.

    Args:
        queries: (N, C); half precision is computed in float32.
        bank: (D, C), a constant: it gets no gradient.
        scale: multiplies the products (1 / contrast temperature).

    Returns:
        (N,), float32 (float64 for float64 queries).

    Raises:
        FGCError: shapes or devices do not match.
    """
    check_bank(queries, bank)
    dtype = torch.promote_types(queries.dtype, torch.float32)
    # Autocast would compute scores in half precision.
    with torch.no_grad(), full_precision(queries):
        out, lse = attend(queries.to(dtype), bank, scale)
    return with_gradient(queries, lse, out, scale)
