"""Binary concrete sampling: hard gates with a soft gradient."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fgc_mm.errors import FGCError

# The spacing of float32 uniform numbers. uniform_ can return 0, and the logits
# of 0 and 1 are infinite.
_EDGE = 2.0**-24


class _BinaryConcrete(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, temperature: float | Tensor, shift: Tensor
    ) -> Tensor:
        # At least float32: half precision cannot represent the noise's tails.
        noisy = shift + logits.to(shift.dtype)
        soft = noisy / temperature
        # sigmoid(-y), since 1 - sigmoid(y) rounds to 0 from y = 17 on.
        slope = soft.sigmoid() * soft.neg().sigmoid() / temperature
        ctx.save_for_backward(slope)
        return _is_positive(noisy, logits.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        return (grad * slope).to(grad.dtype), None, None


def _is_positive(values: Tensor, dtype: torch.dtype) -> Tensor:
    """1 where positive, 0 elsewhere, in a single operation."""
    if torch.compiler.is_compiling():
        return (values > 0).to(dtype)
    return torch.gt(values, 0, out=torch.empty_like(values, dtype=dtype))


def _logistic_noise(logits: Tensor) -> Tensor:
    """log(u) - log(1 - u) of uniform noise, finite."""
    noise = torch.empty_like(
        logits, dtype=torch.float32, requires_grad=False
    ).uniform_()
    return noise.to(_at_least_float32(logits)).logit_(_EDGE)


def _at_least_float32(logits: Tensor) -> torch.dtype:
    return torch.promote_types(logits.dtype, torch.float32)


def binary_concrete(
    logits: Tensor, temperature: float | Tensor, noise: Tensor | None = None
) -> Tensor:
    """Sample hard 0/1 gates; the gradient is that of the soft sample.

    With ``y = (logits + log(u) - log(1 - u)) / temperature`` the result is
    ``1[y > 0]``, and its gradient is ``s * (1 - s) / temperature`` with
    ``s = sigmoid(y)``. Source: Bejnordi et al., "Batch-shaping for learning
    conditional channel gated networks" (ICLR 2020), section 3.1, after
    Maddison et al., "The concrete distribution" (ICLR 2017).

    Args:
        logits: log-odds of an open gate, any shape, floating point.
        temperature: the concrete temperature, > 0 (no unit; 2/3 is usual);
            a scalar tensor is not checked.
        noise: ``u``, uniform in (0, 1), of the shape of ``logits``; sampled
            in float32 on the device of ``logits`` when None.

    Returns:
        0 or 1 in the shape and dtype of ``logits``.

    Raises:
        FGCError: integer logits, a temperature that is not positive, or
            noise of another shape.
    """
    if not logits.is_floating_point():
        raise FGCError(
            f'logits are {logits.dtype}, but gates need floating-point '
            'log-odds: pass the output of the gate before any threshold'
        )
    if not isinstance(temperature, Tensor) and not temperature > 0:
        raise FGCError(
            f'temperature {temperature} is not positive, so no soft gradient '
            'exists: use 2/3, or another value above 0'
        )
    if noise is None:
        shift = _logistic_noise(logits)
        return _BinaryConcrete.apply(logits, temperature, shift)
    if noise.shape != logits.shape:
        raise FGCError(
            f'noise has shape {tuple(noise.shape)} and logits have '
            f'{tuple(logits.shape)}, but each gate needs its own sample: '
            'sample noise of the shape of logits'
        )
    shift = noise.to(_at_least_float32(logits)).logit()
    return _BinaryConcrete.apply(logits, temperature, shift)
