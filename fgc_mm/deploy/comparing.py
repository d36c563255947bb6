"""Comparing outputs and gate decisions of two networks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from fgc_mm.sites import GateRecord

# relative to the largest value, or to 1 if that is larger
TOLERANCE = 1e-4
TOLERANCES = {'float32': TOLERANCE, 'bfloat16': 0.05}
# output tensors of a model for some images, and its gate records
ModelOutput = tuple[list[Tensor], list[GateRecord]]


def flatten_tensors(nested: Any) -> list[Tensor]:
    if nested is None:
        return []
    if isinstance(nested, Tensor):
        return [nested]
    if isinstance(nested, dict):
        nested = nested.values()
    return [tensor for part in nested for tensor in flatten_tensors(part)]


def difference(
    want: list[Tensor], got: list[Tensor], tolerance: float = TOLERANCE
) -> str:
    for one, other in zip(want, got):
        if one.shape != other.shape:
            return f'{tuple(other.shape)} instead of {tuple(one.shape)}'
        scale = max(1.0, one.abs().max().item())
        worst = (one - other).abs().max().item()
        if not worst / scale <= tolerance:  # inf / inf is nan
            return f'logits differ by {worst:.1e} of {scale:.1e}'
    return ''


def output_difference(
    want: ModelOutput, got: ModelOutput, tolerance: float = TOLERANCE
) -> str:
    """How outputs differ, unless rounding changed a gate's decision."""
    problem = difference(want[0], got[0], tolerance)
    rounded = problem and differs_by_rounding(want[1], got[1], tolerance)
    return '' if rounded else problem


def records_of_image(
    records: list[GateRecord], number: int
) -> list[GateRecord]:
    """The records of one image of a batch."""
    part = slice(number, number + 1)
    return [
        replace(r, logits=r.logits[part], mask=r.mask[part]) for r in records
    ]


def differs_by_rounding(
    want: list[GateRecord],
    got: list[GateRecord],
    tolerance: float = TOLERANCE,
) -> bool:
    """Whether rounding explains the first gate that decides differently.

    Its logits must agree within rounding, and those of the channels that
    differ must be between the logits of closed and of open channels.
    """
    for one, other in zip(want, got):
        opened = one.mask != 0
        differ = opened != (other.mask != 0)
        if differ.any():
            return _is_rounding(one, other, opened, differ, tolerance)
    return False


def _is_rounding(
    one: GateRecord,
    other: GateRecord,
    opened: Tensor,
    differ: Tensor,
    tolerance: float,
) -> bool:
    logits, others = (x.site.spread(x.logits) for x in (one, other))
    near = tolerance * max(1.0, logits.abs().max().item())
    if not (logits - others).abs().max().item() <= near:
        return False
    for row, is_open, is_other in zip(logits, opened, differ):
        if not is_other.any():
            continue
        low, high = row[is_other].min().item(), row[is_other].max().item()
        above, below = row[is_open & ~is_other], row[~is_open & ~is_other]
        apart = high - low > 2 * near
        wrong = len(above) and above.min().item() < low - near
        wrong = wrong or (len(below) and below.max().item() > high + near)
        if apart or wrong:
            return False
    return True
