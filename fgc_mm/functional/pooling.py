"""Global pooling with memory-saving gradients."""

from typing import Any

import torch
from torch import Tensor


class _GlobalAverage(torch.autograd.Function):
    """Mean over all positions; its gradient is an expanded view."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor) -> Tensor:
        ctx.shape = maps.shape
        return maps.mean(dim=tuple(range(2, maps.dim())))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        size = ctx.shape[2:].numel()
        spread = (grad / size).reshape(*grad.shape, *[1] * len(ctx.shape[2:]))
        return spread.expand(ctx.shape)


def global_average_pool(maps: Tensor) -> Tensor:
    """Mean over all positions; (N, C, ...) -> (N, C)."""
    if maps.dim() == 2:
        return maps  # mean(dim=()) would be over all dimensions
    if not torch.is_grad_enabled():
        return maps.flatten(2).mean(2)
    return _GlobalAverage.apply(maps)


def global_max_pool(maps: Tensor) -> Tensor:
    """Maximum over all positions; (N, C, ...) -> (N, C)."""
    return maps if maps.dim() == 2 else maps.flatten(2).amax(2)


def flat_maps(maps: Tensor) -> Tensor:
    """(N, C, ...) -> (N, C, positions)."""
    return maps.flatten(2) if maps.dim() > 2 else maps.unsqueeze(2)
