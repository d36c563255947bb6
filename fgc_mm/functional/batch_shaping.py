"""Distance of gate probabilities over a batch to a beta prior."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fgc_mm.errors import FGCError
from fgc_mm.functional._beta import beta_cdf, log_beta
from fgc_mm.functional.number import is_number

# The prior's density is clamped near 0 and 1: it diverges there for alpha or
# beta below 1, and an infinite gradient would break the training.
_EDGE = 1e-6


def _density(p: Tensor, alpha: float, beta: float) -> Tensor:
    p = p.clamp(_EDGE, 1 - _EDGE)
    log_pdf = (alpha - 1) * p.log() + (beta - 1) * torch.log1p(-p)
    return (log_pdf - log_beta(alpha, beta)).exp()


class _BatchShaping(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, probs: Tensor, alpha: float, beta: float) -> Tensor:
        count = len(probs)
        # Stable: deterministic ranks for equal probabilities.
        ordered, order = probs.float().sort(dim=0, stable=True)
        rank = torch.arange(1, count + 1, device=probs.device).unsqueeze(1)
        gap = rank / (count + 1) - beta_cdf(ordered, alpha, beta)
        slope = gap * _density(ordered, alpha, beta) * (-2 / count)
        slope = torch.empty_like(slope).scatter_(0, order, slope)
        ctx.save_for_backward(slope.to(probs.dtype))
        return gap.square().sum() / count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        return (slope * grad).to(slope.dtype), None, None


def batch_shaping(
    probs: Tensor, alpha: float = 0.6, beta: float = 0.4
) -> Tensor:
    """Distance of each channel's batch of probabilities to a beta prior.

    For each channel the mean over i of ``(i / (N + 1) - F(p_(i))) ** 2``,
    summed over channels; ``p_(i)`` is the i-th smallest of the N
    probabilities, F the cumulative distribution of Beta(alpha, beta). The
    gradient is ``-2 pdf(p) (i / (N + 1) - F(p)) / N``, where the density is
    taken at p clamped to [1e-6, 1 - 1e-6]. Source: Bejnordi et al.,
    "Batch-shaping for learning conditional channel gated networks" (ICLR
    2020), section 3.2 and algorithm 1.

    Args:
        probs: (N, C) probabilities of open gates, in [0, 1]; computed in
            float32 for any dtype. N = 1 is allowed.
        alpha: first parameter of the prior, > 0.
        beta: second parameter of the prior, > 0.

    Returns:
        (), float32.

    Raises:
        FGCError: alpha or beta is not positive, or probs is not (N, C).
    """
    for name, value in (('alpha', alpha), ('beta', beta)):
        if not (is_number(value) and value > 0):
            raise FGCError(
                f'{name} = {value!r} is not positive, so there is no beta '
                'prior: use alpha=0.6 and beta=0.4, or other values above 0'
            )
    if probs.ndim != 2 or len(probs) == 0 or not probs.is_floating_point():
        raise FGCError(
            f'probs are {probs.dtype} of shape {tuple(probs.shape)}, but '
            'floating-point (N, C) with N >= 1 is needed: pass the gate '
            'probabilities of one site'
        )
    return _BatchShaping.apply(probs, float(alpha), float(beta))
