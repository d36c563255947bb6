"""The cumulative distribution of Beta(a, b), tabulated.

torch has no regularised incomplete beta function, and scipy's runs on the CPU
only. F is singular at 0 like ``p ** a`` and at 1 like ``(1 - p) ** b``.
As a function of ``t = p ** min(a, 1)`` below one half, and of the mirrored
variable above it, it is smooth, so a uniform table in t with linear
interpolation is accurate at both ends.
"""

from functools import lru_cache
from math import lgamma

import torch
from torch import Tensor

_INTERVALS = 8192


def log_beta(a: float, b: float) -> float:
    """log B(a, b)."""
    return lgamma(a) + lgamma(b) - lgamma(a + b)


def _lower_half(a: float, b: float) -> Tensor:
    """F at ``p = t ** (1 / min(a, 1))``, p in [0, 1/2], t uniform; float64."""
    from scipy.special import betainc  # takes 0.2 s to import

    power = min(a, 1.0)
    end, count = 0.5**power, _INTERVALS + 1
    t = torch.linspace(0, end, count, dtype=torch.float64, device='cpu')
    return torch.from_numpy(betainc(a, b, t.numpy() ** (1 / power)))


@lru_cache(maxsize=32)
def _tables(a: float, b: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """F on the lower half and 1 - F on the upper half, float32."""
    # A table made under inference mode could not be used in training.
    with torch.inference_mode(False), torch.no_grad():
        tables = torch.stack([_lower_half(a, b), _lower_half(b, a)])
        lower, upper = tables.to(device, torch.float32)
        return lower, upper


def _look_up(table: Tensor, distance: Tensor, power: float) -> Tensor:
    """Interpolate at a distance in [0, 1/2] from 0 or from 1."""
    position = (distance * 2).pow(power) * _INTERVALS
    # Clamped, so that a NaN gives NaN and no index is out of range.
    left = position.long().clamp_(0, _INTERVALS - 1)
    return torch.lerp(table[left], table[left + 1], position - left)


def beta_cdf(p: Tensor, a: float, b: float) -> Tensor:
    """F(p) of Beta(a, b) for float32 p in [0, 1]; error below 1e-6."""
    lower, upper = _tables(a, b, p.device)
    below = _look_up(lower, p.clamp(0, 0.5), min(a, 1.0))
    # 1 - p is exact in float32 from one half on.
    above = 1 - _look_up(upper, (1 - p).clamp(0, 0.5), min(b, 1.0))
    return torch.where(p < 0.5, below, above)
