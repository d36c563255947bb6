"""Multiplying channels by a mask, with a memory-saving backward."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from fgc_mm.functional.on_device import kept_on_device
from fgc_mm.functional.pooling import flat_maps


class _MaskChannels(torch.autograd.Function):
    """The product, with fewer temporary maps in the backward than autograd."""

    @staticmethod
    def forward(ctx: Any, activation: Tensor, mask: Tensor) -> Tensor:
        ctx.save_for_backward(activation, mask)
        return activation * _broadcast(mask, activation)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        activation, mask = ctx.saved_tensors
        if (
            grad.device.type == 'cpu'
            and grad.numel()
            and grad.is_contiguous()
            and activation.is_contiguous()
        ):
            return _gradients_in_one_pass(grad, activation, mask)
        product = grad * activation
        grad_mask = flat_maps(product).sum(dim=2)
        mask = _broadcast(mask, grad)
        if torch.compiler.is_compiling():  # it plans memory itself
            return grad * mask, grad_mask
        # reuse the product's memory for the gradient
        return torch.mul(grad, mask, out=product), grad_mask


def _gradients_in_one_pass(
    grad: Tensor, activation: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor]:
    """Both gradients, reading the maps once.

    A product with a mask equals a batch norm in evaluation mode of one image
    with N * C channels, with mean 0, variance 1 and the mask as weight. torch
    computes the gradients of a norm's input and weight in one kernel.
    """
    channels = mask.numel()
    planes = (1, channels, grad.numel() // channels)
    weight = mask.flatten()
    weight = weight.to(torch.promote_types(weight.dtype, torch.float32))
    zeros, ones = weight.new_zeros(channels), weight.new_ones(channels)
    found = torch.ops.aten.native_batch_norm_backward(
        # a compiled backward may get other strides than it was traced with
        grad.reshape(planes), activation.reshape(planes), weight,
        zeros, ones, None, None, False, 0.0, [True, True, False],
    )  # fmt: skip
    return found[0].view_as(grad), found[1].view_as(mask).to(mask.dtype)


def _broadcast(mask: Tensor, like: Tensor) -> Tensor:
    return mask.reshape(*mask.shape, *[1] * (like.dim() - 2))


def mask_channels(
    activation: Tensor, mask: Tensor, inplace: bool = False
) -> Tensor:
    """``activation[n, c] * mask[n, c]``.

    Args:
        activation: (N, C, ...).
        mask: (N, C); cast to the activation's dtype. A product with 1 is
            bit-identical.
        inplace: Modify the activation itself, if no gradient is recorded
            and its strides allow it.

    Returns:
        (N, C, ...), differentiable in both.
    """
    mask = mask.to(activation.dtype)
    # a compiler plans memory itself
    inplace = inplace and not torch.compiler.is_compiling()
    if inplace and not torch.is_grad_enabled() and not _overlaps(activation):
        return activation.mul_(_broadcast(mask, activation))
    if mask.requires_grad and torch.is_grad_enabled():
        return _MaskChannels.apply(activation, mask)
    return activation * _broadcast(mask, activation)


def _overlaps(x: Tensor) -> bool:
    """Whether two entries may share memory, as those of sliding windows."""
    last = 0  # offset of the last entry of the dimensions so far
    for stride, size in sorted(zip(x.stride(), x.shape)):
        if size > 1:
            if stride <= last:
                return True
            last += (size - 1) * stride
    return False


def spread_mask(
    mask: Tensor, positions: Tensor | Sequence[int] | None
) -> Tensor:
    """Expand a site's mask to all channels of a layer's input or output.

    Args:
        mask: (N, C), of any dtype.
        positions: (X,) for each channel of the layer the index of the site's
            channel, or -1 if it does not belong to the site; ``None``: the
            site's channels in order.

    Returns:
        (N, X); 1 for channels that do not belong to the site.
    """
    if positions is None:
        return mask
    if not isinstance(positions, Tensor):
        positions = kept_on_device(tuple(positions), mask.device)
    # -1 selects the additional first column of ones
    padded = F.pad(mask, (1, 0), value=1)
    return padded.index_select(1, positions + 1)
