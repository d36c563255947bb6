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
from fgc_mm.deploy.graph.interpreter import interpret
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

    def settle(self, dynamic: Any) -> None:
        """Find the sites that cannot skip channels; they stay masked.

        Args:
            dynamic: The dynamic model, no site dense; changed.

        Raises:
            FGCError: The model differs even if no channel is skipped.
        """
        if not self._any_problem(dynamic):
            return
        names = [site.name for site in dynamic.backbone.sites]
        dynamic.backbone.dense = dict.fromkeys(names, 'not tried yet')
        self.verify(dynamic)
        self._accept(dynamic, names)

    def _accept(self, dynamic: Any, names: list[str]) -> None:
        """Let sites skip channels beside those that do; halves if not all."""
        if not names:
            return
        dense = dynamic.backbone.dense
        tried = {n: why for n, why in dense.items() if n not in names}
        dynamic.backbone.dense = tried
        problem = self._any_problem(dynamic)
        if not problem:
            return
        dynamic.backbone.dense = dense
        if len(names) == 1:
            dynamic.backbone.dense = {
                **dense,
                names[0]: f'skipping fails: {problem}',
            }
            return
        half = len(names) // 2
        self._accept(dynamic, names[:half])
        self._accept(dynamic, names[half:])

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

        The gates may happen to open everything on the images; so constant
        masks are tried at every site: every other channel, one, none. The
        graph is run by its interpreter, to which a channel that is not
        computed is nan.
        """
        if self._forced is None:
            self._forced = list(self._force())
        program = dynamic.program(self._images[0])
        if program is None:
            return ''
        for opened, image, want in self._forced:
            masks = [
                opened(site.channels)[None].float()
                for site in dynamic.backbone.sites
            ]
            values = interpret(program.graph, image, masks)
            got = [values[node] for node in program.graph.outputs]
            problem = compared(want, got)
            if problem:
                return f'{problem} ({opened.__name__} mask)'
        return ''

    def _force(self) -> Iterator[tuple[Opened, Tensor, list[Tensor]]]:
        image = self._images[0]
        for opened in (partial, single, empty):
            with forced(self._masked.backbone, opened):
                want = _logits_if_any(self._masked, image)
            if want is not None:
                yield opened, image, want


def _logits_if_any(
    model: GatedImageClassifier, images: Tensor
) -> list[Tensor] | None:
    """Nothing, if the masked model does not run, or gives no numbers."""
    try:
        logits = _answer(model, images)[0]
    except Exception:  # it may take images of one size only
        return None
    return logits if all(x.isfinite().all() for x in logits) else None


def _problem(dynamic: Any, image: Tensor, answer: Answer) -> str:
    """What is wrong, in words, unless a gate decided by a rounding."""
    want, records = answer
    try:
        got, own = _answer(dynamic, image)
        # one call from image to logits is another program
        whole = flat(dynamic(image))
    except Exception as error:
        return _in_words(error)
    problem = compared(want, got) or compared(want, whole)
    return '' if problem and on_the_edge(records, own) else problem


def _in_words(error: Exception) -> str:
    """The backbone's own code may say anything to fewer channels."""
    lines = str(error).strip().splitlines() or ['']
    return f'{type(error).__name__}: {lines[0]}'


@torch.no_grad()
def _answer(model: GatedImageClassifier, images: Tensor) -> Answer:
    feats, records = model._extract_gated(images)
    scores = model.head(feats) if model.with_head else feats
    return flat(scores), records


def flat(nested: Any) -> list[Tensor]:
    if isinstance(nested, Tensor):
        return [nested]
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
