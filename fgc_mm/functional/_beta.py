"""The cumulative distribution of Beta(a, b), tabulated.

torch has no regularised incomplete beta function. F is singular at 0 like
``p ** a`` and at 1 like ``(1 - p) ** b``. As a function of ``t = p ** min(a,
1)`` below one half, and of the mirrored variable above it, it is smooth, so a
uniform table in t with linear interpolation is accurate at both ends.
"""

from functools import lru_cache
from math import lgamma
from typing import Any

import torch
from torch import Tensor

_INTERVALS = 8192
# Gauss-Legendre, 4 points on [-1, 1].
_NODES = (0.339981043584856, 0.861136311594053)
_WEIGHTS = (0.652145154862546, 0.347854845137454)


def log_beta(a: float, b: float) -> float:
    """log B(a, b)."""
    return lgamma(a) + lgamma(b) - lgamma(a + b)


def _lower_half(a: float, b: float) -> Tensor:
    """F at ``p = t ** (1 / min(a, 1))``, p in [0, 1/2], t uniform; float64."""
    power = min(a, 1.0)
    step = 0.5**power / _INTERVALS
    options: dict[str, Any] = {'dtype': torch.float64, 'device': 'cpu'}
    middle = (torch.arange(_INTERVALS, **options) + 0.5) * step
    offset = torch.tensor([-n for n in _NODES] + [*_NODES], **options)
    weight = torch.tensor(_WEIGHTS * 2, **options)
    t = middle.unsqueeze(1) + offset * (step / 2)
    log_p = t.log() / power
    # p ** (a - 1) dp = t ** (a / power - 1) dt / power
    log_density = (a / power - 1) * t.log() - log_beta(a, b)
    log_density += (b - 1) * torch.log1p(-log_p.exp())
    mass = log_density.exp() @ weight * (step / 2 / power)
    return torch.cat([torch.zeros(1, **options), mass.cumsum(0)])


@lru_cache(maxsize=32)
def _tables(a: float, b: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """F on the lower half and 1 - F on the upper half, float32."""
    # A table made under inference mode could not be used in training.
    with torch.inference_mode(False), torch.no_grad():
        lower, upper = _lower_half(a, b), _lower_half(b, a)
        whole = lower[-1] + upper[-1]
        tables = torch.stack([lower / whole, upper / whole])
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
