"""Values whose gradient was computed together with them."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class _KnownGradient(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, values: Tensor, slope: Tensor, scale: float
    ) -> Tensor:
        ctx.save_for_backward(slope)
        ctx.scale, ctx.dtype = scale, x.dtype
        return values.view_as(values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (slope,) = ctx.saved_tensors
        if ctx.scale != 1:
            grad = grad * ctx.scale
        return (slope * grad.unsqueeze(1)).to(ctx.dtype), None, None, None


def with_gradient(
    x: Tensor, values: Tensor, slope: Tensor, scale: float = 1.0
) -> Tensor:
    """The values as a function of x whose gradient is known.

    Only the gradient is kept for the backward pass, so the tensors from which
    it was computed may be overwritten.

    Args:
        x: (N, C).
        values: (N,), computed without a graph.
        slope: (N, C), for each value its gradient in its row of x, divided
            by ``scale``.
        scale: Factor of the gradient.
    """
    return _KnownGradient.apply(x, values, slope, scale)
