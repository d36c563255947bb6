"""Log-sum-exp over a whole bank, without an N x D matrix."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fgc_mm.functional._attention import attend
from fgc_mm.functional._checks import check_bank
from fgc_mm.functional.full_precision import full_precision


class _BankLogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        queries: Tensor,
        bank: Tensor,
        scale: float,
    ) -> Tensor:
        dtype = torch.promote_types(queries.dtype, torch.float32)
        # Autocast would compute scores in half precision.
        with full_precision(queries):
            out, lse = attend(queries.to(dtype), bank, scale)
        # The attention output is the gradient: the bank itself is not saved,
        # so it may be updated in place before the backward pass.
        ctx.save_for_backward(out)
        ctx.scale, ctx.dtype = scale, queries.dtype
        return lse

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (out,) = ctx.saved_tensors
        full = out * (grad * ctx.scale).unsqueeze(1)
        return full.to(ctx.dtype), None, None


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
    return _BankLogSumExp.apply(queries, bank.detach(), float(scale))
