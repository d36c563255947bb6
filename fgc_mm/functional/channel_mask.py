"""Multiplying channels with a mask, cheaply in both directions."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class _MaskChannels(torch.autograd.Function):
    """The product, whose backward makes fewer maps than autograd's.

    The gradient for the activation takes the memory of the product from
    which the mask's gradient was summed.
    """

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        activation: Tensor,
        mask: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(activation, mask)
        return activation * _broadcast(mask, activation)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: torch.autograd.function.FunctionCtx, grad: Tensor
    ) -> tuple[Tensor, Tensor]:
        activation, mask = ctx.saved_tensors
        product = grad * activation
        grad_mask = _lines(product).sum(dim=2)
        mask = _broadcast(mask, grad)
        if torch.compiler.is_compiling():  # which plans the memory itself
            return grad * mask, grad_mask
        # the product's memory is free again: the gradient takes its place
        return torch.mul(grad, mask, out=product), grad_mask


def _broadcast(mask: Tensor, like: Tensor) -> Tensor:
    return mask.reshape(*mask.shape, *[1] * (like.dim() - 2))


def _lines(maps: Tensor) -> Tensor:
    """(N, C, ...) -> (N, C, positions)."""
    return maps.flatten(2) if maps.dim() > 2 else maps.unsqueeze(2)


def mask_channels(
    activation: Tensor, mask: Tensor, inplace: bool = False
) -> Tensor:
    """``activation[n, c] * mask[n, c]``.

    Args:
        activation: (N, C, ...).
        mask: (N, C); cast to the activation's type. All ones leave the
            activation as it is, bit for bit.
        inplace: Change the activation itself, where no gradient is recorded
            and its memory allows it.

    Returns:
        (N, C, ...), with gradients for both.
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
    """A site's mask over all channels of a layer's input or output.

    Args:
        mask: (N, C), of any type.
        positions: (X,) the site's channel at each place, -1 for another's;
            ``None`` if they are the site's in order.

    Returns:
        (N, X); 1 where the site has no say.
    """
    if positions is None:
        return mask
    # one more column, of ones, is what -1 selects; no len(), which would fix
    # the batch size of an exported network
    padded = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
    return padded[:, torch.as_tensor(positions)]
