"""Whether two networks say the same: outputs, and what gates decide."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fgc_mm.sites import GateRecord

TOLERANCE = 1e-4  # of the largest number, at least of 1


def flat(nested: Any) -> list[Tensor]:
    if nested is None:
        return []
    if isinstance(nested, Tensor):
        return [nested]
    if isinstance(nested, dict):
        nested = nested.values()
    return [tensor for part in nested for tensor in flat(part)]


def compared(want: list[Tensor], got: list[Tensor]) -> str:
    for one, other in zip(want, got):
        if one.shape != other.shape:
            return f'{tuple(other.shape)} instead of {tuple(one.shape)}'
        scale = max(1.0, one.abs().max().item())
        worst = (one - other).abs().max().item()
        if not worst <= TOLERANCE * scale:
            return f'logits differ by {worst:.1e} of {scale:.1e}'
    return ''


def on_the_edge(want: list[GateRecord], got: list[GateRecord]) -> bool:
    """Whether the first gate that decides differently does so by rounding."""
    for one, other in zip(want, got):
        differ = (one.mask != 0) != (other.mask != 0)
        if differ.any():
            gap = (one.logits - other.logits).abs().max().item()
            return gap <= TOLERANCE * max(1, one.logits.abs().max().item())
    return False
