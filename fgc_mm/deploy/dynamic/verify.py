"""Is a dynamic model the masked one? Logits and decisions, image by image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from fgc_mm.deploy.copying import copied
from fgc_mm.deploy.dynamic.forced import (
    Opened,
    empty,
    forced,
    partial,
    single,
)
from fgc_mm.deploy.dynamic.plan import BATCH, LOOP
from fgc_mm.deploy.dynamic.port import DynamicPort
from fgc_mm.errors import FGCError
from fgc_mm.models import GatedImageClassifier
from fgc_mm.sites import GateRecord

TOLERANCE = 1e-4
# What a model gives to some images, and what its gates decided.
Answer = tuple[list[Tensor], list[GateRecord]]


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
        self._masked = copied(model).train(False)
        self._images = images[:most].split(1)
        self._answers = [_answer(self._masked, one) for one in self._images]
        self._forced: list[tuple[Opened, Tensor, list[Tensor]]] | None = None

    def settle(self, dynamic: Any, reasons: dict[str, str]) -> None:
        """Find the sites that cannot skip channels; they stay masked.

        Args:
            dynamic: The dynamic model, every site compact; changed.
            reasons: Why sites stay masked; added to.

        Raises:
            FGCError: The model differs even if no channel is skipped.
        """
        if not self._any_problem(dynamic):
            return
        ports = dynamic.backbone.dynamic_ports
        _set_compact(ports, False)
        self.verify(dynamic)
        self._accept(dynamic, ports, reasons)

    def _accept(
        self, dynamic: Any, ports: list[DynamicPort], reasons: dict[str, str]
    ) -> None:
        """Let sites skip channels beside those that do; halves if not all."""
        if not ports:
            return
        _set_compact(ports, True)
        problem = self._any_problem(dynamic)
        if not problem:
            return
        _set_compact(ports, False)
        if len(ports) == 1:
            reasons[ports[0].site.name] = f'skipping fails: {problem}'
            return
        half = len(ports) // 2
        self._accept(dynamic, ports[:half], reasons)
        self._accept(dynamic, ports[half:], reasons)

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
        """What is wrong on the images, in words; '' if nothing."""
        for image, answer in zip(self._images, self._answers):
            problem = _problem(dynamic, image, answer)
            if problem:
                return problem
        return ''

    def _any_problem(self, dynamic: Any) -> str:
        """The same, also with other channels open than the gates say."""
        return self.problem(dynamic) or self.forced_problem(dynamic)

    def forced_problem(self, dynamic: Any) -> str:
        """What is wrong with given channels open, in words; '' if nothing.

        The gates may open every channel of the few images at hand, and close
        some of another's. So at all sites every other channel is opened, the
        last one, and none; for images of another size and in a batch, too.
        """
        if self._forced is None:
            self._forced = list(self._force())
        for opened, images, want in self._forced:
            with forced(dynamic.backbone, opened):
                problem = _difference(dynamic, images, want)
            if problem:
                size = 'x'.join(map(str, images.shape))
                return f'{problem} ({opened.__name__} mask, {size})'
        return ''

    def _force(self) -> Iterator[tuple[Opened, Tensor, list[Tensor]]]:
        one = self._images[0]
        height, width = one.shape[2:]
        cut = one[:, :, height // 4 :, width // 8 :]
        for opened, tries in [
            (partial, (_two(cut), _two(one))),  # not all take any size
            (single, (one,)),
            (empty, (one,)),
        ]:
            for images in tries:
                with forced(self._masked.backbone, opened):
                    want = _logits_if_any(self._masked, images)
                if want is not None:
                    yield opened, images, want
                    break


def _two(image: Tensor) -> Tensor:
    """A batch of two images that differ."""
    return torch.cat([image, 1.5 * image + 0.1])


def _set_compact(ports: list[DynamicPort], compact: bool) -> None:
    for port in ports:
        port.compact = compact


def _logits_if_any(
    model: GatedImageClassifier, images: Tensor
) -> list[Tensor] | None:
    """Nothing, if the masked model does not run, or gives no numbers."""
    try:
        logits = _answer(model, images)[0]
    except Exception:  # it may take images of one size only
        return None
    return logits if all(x.isfinite().all() for x in logits) else None


@torch.no_grad()
def _difference(dynamic: Any, images: Tensor, want: list[Tensor]) -> str:
    """What is wrong, in words, image by image and in a batch."""
    backbone = dynamic.backbone
    chosen = backbone.batch
    problem = ''
    try:
        for batch in (LOOP, BATCH)[: len(images)]:
            backbone.batch = batch
            problem = problem or _compare(want, _flat(dynamic(images)))
    except Exception as error:
        problem = _in_words(error)
    finally:
        backbone.batch = chosen
    return problem


def _problem(dynamic: Any, image: Tensor, answer: Answer) -> str:
    """What is wrong, in words, unless a gate decided by a rounding."""
    want, records = answer
    try:
        got, own = _answer(dynamic, image)
        # one call from image to logits is another program
        whole = _flat(dynamic(image))
    except Exception as error:
        return _in_words(error)
    problem = _compare(want, got) or _compare(want, whole)
    return '' if problem and _on_the_edge(records, own) else problem


def _in_words(error: Exception) -> str:
    """The backbone's own code may say anything to fewer channels."""
    lines = str(error).strip().splitlines() or ['']
    return f'{type(error).__name__}: {lines[0]}'


@torch.no_grad()
def _answer(model: GatedImageClassifier, images: Tensor) -> Answer:
    feats, records = model._extract_gated(images)
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
