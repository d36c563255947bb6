"""Is a dynamic model the masked one? Logits and decisions, image by image."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from fgc_mm.errors import FGCError
from fgc_mm.models import GatedImageClassifier
from fgc_mm.sites import GateRecord

TOLERANCE = 1e-4


class Reference:
    """What the masked model says about some images.

    Args:
        model: The masked model; a copy in evaluation is asked.
        images: (N, 3, H, W).
        most: How many images are asked about.
    """

    def __init__(
        self, model: GatedImageClassifier, images: Tensor, most: int = 4
    ) -> None:
        masked = copy.deepcopy(model)
        masked.train(False)
        self.images = images[:most].split(1)
        self.answers = [_answer(masked, image) for image in self.images]

    def settle(self, dynamic: Any, reasons: dict[str, str]) -> None:
        """Find the sites that cannot skip channels; they stay masked.

        Args:
            dynamic: The dynamic model, every site compact; changed.
            reasons: Why sites stay masked; added to.

        Raises:
            FGCError: The model differs even if no channel is skipped.
        """
        if not self.problem(dynamic):
            return
        ports = dynamic.backbone.dynamic_ports
        for port in ports:
            port.compact = False
        self.verify(dynamic)
        for port in ports:
            port.compact = True
            problem = self.problem(dynamic)
            if problem:
                port.compact = False
                reasons[port.site.name] = f'skipping fails: {problem}'

    def verify(self, dynamic: Any) -> None:
        """Refuse a model that differs.

        Raises:
            FGCError: With the largest difference.
        """
        problem = self.problem(dynamic)
        if problem:
            raise FGCError(
                'dynamic execution does not give what the masked model '
                f'gives ({problem}), so it is refused; go on with the masked '
                'model.'
            )

    def problem(self, dynamic: Any) -> str:
        """What is wrong, in words; '' if nothing."""
        for image, (want, records) in zip(self.images, self.answers):
            try:
                got, own = _answer(dynamic, image)
                whole = _flat(dynamic(image))
            # the backbone's own code may say anything to fewer channels
            except Exception as error:
                return f'{type(error).__name__}: {str(error).splitlines()[0]}'
            problem = _compare(want, got) or _compare(want, whole)
            if problem and not _on_the_edge(records, own):
                return problem
        return ''


@torch.no_grad()
def _answer(
    model: GatedImageClassifier, image: Tensor
) -> tuple[list[Tensor], list[GateRecord]]:
    feats, records = model._extract_gated(image)
    scores = model.head(feats) if model.with_head else feats
    return _flat(scores), records


def _flat(nested: Any) -> list[Tensor]:
    if isinstance(nested, Tensor):
        return [nested]
    return [tensor for part in nested for tensor in _flat(part)]


def _compare(want: list[Tensor], got: list[Tensor]) -> str:
    for one, other in zip(want, got):
        if one.shape != other.shape:
            return f'{tuple(other.shape)} instead of {tuple(one.shape)}'
        scale = max(1.0, one.abs().max().item())
        worst = (one - other).abs().max().item()
        if not worst <= TOLERANCE * scale:
            return f'logits differ by {worst:.1e} of {scale:.1e}'
    return ''


def _on_the_edge(want: list[GateRecord], got: list[GateRecord]) -> bool:
    """Whether the first gate that decides differently does so by rounding."""
    for one, other in zip(want, got):
        differ = (one.mask != 0) != (other.mask != 0)
        if differ.any():
            gap = (one.logits - other.logits).abs().max().item()
            return gap <= TOLERANCE * max(1, one.logits.abs().max().item())
    return False
