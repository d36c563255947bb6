"""Multiplying channels by a mask, with a memory-saving backward."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


class _MaskChannels(torch.autograd.Function):
    """The product, with fewer temporary maps in the backward than autograd.

    The activation's gradient reuses the memory of the product that is summed
    for the mask's gradient.
    """

    @staticmethod
    def forward(
        ctx: Any,
        activation: Tensor,
        mask: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(activation, mask)
        return activation * _broadcast(mask, activation)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        activation, mask = ctx.saved_tensors
        product = grad * activation
        grad_mask = _flat_positions(product).sum(dim=2)
        mask = _broadcast(mask, grad)
        if torch.compiler.is_compiling():  # it plans memory itself
            return grad * mask, grad_mask
        # reuse the product's memory for the gradient
        return torch.mul(grad, mask, out=product), grad_mask


def _broadcast(mask: Tensor, like: Tensor) -> Tensor:
    return mask.reshape(*mask.shape, *[1] * (like.dim() - 2))


def _flat_positions(maps: Tensor) -> Tensor:
    """(N, C, ...) -> (N, C, positions)."""
    return maps.flatten(2) if maps.dim() > 2 else maps.unsqueeze(2)


def mask_channels(
    activation: Tensor, mask: Tensor, inplace: bool = False
) -> Tensor:
    """``activation[n, c] * mask[n, c]``.

    Args:
        activation: (N, C, ...).
        mask: (N, C); cast to the activation's dtype. Ones do not change the
            activation, bit for bit.
        inplace: Modify the activation itself, if no gradient is recorded
            and its strides allow it.

    Returns:
        (N, C, ...), differentiable in both.
    """
    mask = mask.to(activation.dtype)
    if (
        inplace
        and not torch.is_grad_enabled()
        and 0 not in activation.stride()
    ):
        return activation.mul_(_broadcast(mask, activation))
    if mask.requires_grad and torch.is_grad_enabled():
        return _MaskChannels.apply(activation, mask)
    return activation * _broadcast(mask, activation)


def spread_mask(
    mask: Tensor, positions: Tensor | Sequence[int] | None
) -> Tensor:
    """Expand a site's mask to all channels of a layer's input or output.

    Args:
        mask: (N, C), of any dtype.
        positions: (X,) the site's channel for each of the layer's channels,
            -1 if it is not the site's; ``None``: the site's in order.

    Returns:
        (N, X); 1 for channels that are not the site's.
    """
    if positions is None:
        return mask
    # -1 selects the additional first column of ones
    padded = F.pad(mask, (1, 0), value=1)
    return padded.index_select(1, torch.as_tensor(positions) + 1)
