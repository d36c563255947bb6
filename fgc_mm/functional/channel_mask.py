"""Multiplying channels with a mask, cheaply in both directions."""
import torch
from torch import Tensor


class _MaskChannels(torch.autograd.Function):
    """The product, whose backward makes one map, not three.

    Autograd's own backward of the broadcast product writes ``grad * mask``
    and ``grad * activation`` and then reduces the latter. Here the second is
    a row-wise dot product and is never written.
    """

    @staticmethod
    def forward(ctx, activation: Tensor, mask: Tensor) -> Tensor:
        ctx.save_for_backward(activation, mask)
        return activation * _broadcast(mask, activation)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor]:
        activation, mask = ctx.saved_tensors
        # NC rows of length HW, each against its own twin
        rows = mask.numel()
        grad_mask = torch.bmm(
            grad.reshape(rows, 1, -1), activation.reshape(rows, -1, 1)
        )
        return grad * _broadcast(mask, grad), grad_mask.view_as(mask)


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
