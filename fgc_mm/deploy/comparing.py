"""Comparing outputs and gate decisions of two networks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from fgc_mm.errors import FGCError
from fgc_mm.models import GatedBackbone, GatedImageClassifier
from fgc_mm.sites import GateRecord
from fgc_mm.sites.call import tensors

# relative to the largest value, or to 1 if that is larger
TOLERANCE = 1e-4
TOLERANCES = {'float32': TOLERANCE, 'bfloat16': 0.05}
Masked = GatedImageClassifier | GatedBackbone
# output tensors of a model for some images, and its gate records
ModelOutput = tuple[list[Tensor], list[GateRecord]]


@torch.no_grad()
def model_output(model: Masked, images: Tensor) -> ModelOutput:
    """The outputs of a model, or those of its head, and the gate records."""
    if isinstance(model, GatedBackbone):
        outputs, records = model.forward_gated(images)
        return tensors(outputs), records
    feats, records = model._extract_gated(images)
    scores = model.head(feats) if model.with_head else feats
    return tensors(scores), records


def finite_outputs(run: Callable[[], Any]) -> list[Tensor] | None:
    """The output tensors of a pass with constant masks.

    None if it fails or they are not finite: there is nothing to compare with.
    """
    try:
        outputs = tensors(run())
    except Exception:  # e.g. it accepts images of one size only
        return None
    return outputs if all(x.isfinite().all() for x in outputs) else None


def check_precision(network: nn.Module) -> None:
    """Refuse a network whose rounding exceeds ``TOLERANCE``.

    Raises:
        FGCError: It has weights of float16 or bfloat16.
    """
    for dtype in {weight.dtype for weight in network.parameters()}:
        if dtype.is_floating_point and torch.finfo(dtype).eps > TOLERANCE:
            raise FGCError(
                f'the model computes in {dtype}, whose rounding is larger '
                f'than the difference of {TOLERANCE} that a copy with fewer '
                'channels may have; give model.float() and images.float().'
            )


def largest_gap(wanted: Any, got: Any, least: float = 1e-9) -> float:
    """Largest difference relative to the largest value; inf if shapes differ.

    It is nan if any output is, so compare it by ``not gap <= limit``. The
    divisor is at least ``least``.
    """
    wanted, got = tensors(wanted), tensors(got)
    if [x.shape for x in wanted] != [x.shape for x in got]:
        return float('inf')
    gap = _largest([a.double() - b.double() for a, b in zip(wanted, got)])
    return float(gap / _largest(wanted).clamp(min=least))


def _largest(values: list[Tensor]) -> Tensor:
    largest = [x.double().abs().max() for x in values if x.numel()]
    if not largest:
        return torch.tensor(0.0)
    # Python's max() ignores a nan behind the first value
    return torch.stack(largest).max()


def difference(
    want: list[Tensor], got: list[Tensor], tolerance: float = TOLERANCE
) -> str:
    """How outputs differ, each relative to its largest value; '' if not."""
    if len(want) != len(got):
        return f'{len(got)} outputs instead of {len(want)}'
    for one, other in zip(want, got):
        if one.shape != other.shape:
            return f'{tuple(other.shape)} instead of {tuple(one.shape)}'
        if one.dtype != other.dtype:
            return f'{other.dtype} instead of {one.dtype}'
        scale = max(1.0, _largest([one]).item())
        worst = _largest([one.double() - other.double()]).item()
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
        if (
            high - low > 2 * near
            or (above < low - near).any()
            or (below > high + near).any()
        ):
            return False
    return True
