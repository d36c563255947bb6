"""Comparing a dynamic model with the masked one, image by image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from fgc_mm.deploy.comparing import (
    compared,
    flat,
    of_image,
    on_the_edge,
)
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

# Output tensors of a model for some images, and its gate records.
Answer = tuple[list[Tensor], list[GateRecord]]


class Reference:
    """Outputs of the masked model for some images, to compare with.

    Args:
        model: The masked model, in evaluation; it is not changed.
        images: (N, 3, H, W).
        most: Maximum number of images used.
    """

    def __init__(
        self, model: GatedImageClassifier, images: Tensor, most: int = 4
    ) -> None:
        self._masked = model
        self._images = images[:most].split(1)
        self._answers = [_answer(self._masked, one) for one in self._images]

    def problem_of_programs(self, dynamic: Any) -> str:
        """Why the model cannot run as a program; '' if it can."""
        return (
            self._batch_problem()
            or self.problem(dynamic)
            or self.forced_problem(dynamic)
        )

    def _batch_problem(self) -> str:
        """Whether an image of a batch changes another image's outputs."""
        two = torch.cat([self._images[0], 1.5 * self._images[0] + 0.1])
        both, records = _answer(self._masked, two)
        alone, own = _answer(self._masked, two[:1])
        differ = compared(alone, [x[:1] for x in both])
        if differ and not on_the_edge(own, of_image(records, 0)):
            return 'images of a batch depend on each other'
        return ''

    def verify(self, dynamic: Any) -> None:
        """Refuse a model that differs.

        Raises:
            FGCError: The outputs differ; has the largest difference.
        """
        problem = self.problem(dynamic)
        if problem:
            raise FGCError(
                'dynamic execution and the masked model have different '
                f'outputs ({problem}), so it is refused; use the masked '
                'model.'
            )

    def problem(self, dynamic: Any) -> str:
        """How the outputs differ on the images; '' if they do not."""
        for image, answer in zip(self._images, self._answers):
            problem = _problem(dynamic, image, answer)
            if problem:
                return problem
        return ''

    def forced_problem(self, dynamic: Any) -> str:
        """How the outputs differ with constant masks; '' if they do not.

        The gates may happen to open everything on the images; so constant
        masks are tried at every site: every other channel, one, none. The
        graph runs in its interpreter, where channels that are not computed
        are nan.
        """
        program = dynamic.program(self._images[0])
        if program is None:
            return ''
        for opened, image, want in self._force():
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
    """``None`` if the masked model fails or its outputs are not finite."""
    try:
        logits = _answer(model, images)[0]
    except Exception:  # e.g. it accepts images of one size only
        return None
    return logits if all(x.isfinite().all() for x in logits) else None


def _problem(dynamic: Any, image: Tensor, answer: Answer) -> str:
    """How the outputs differ, unless rounding changed a decision."""
    want, records = answer
    try:
        got, own = _answer(dynamic, image)
        # the call from images to logits is another program
        whole = flat(dynamic(image))
    except Exception as error:
        return _in_words(error)
    problem = compared(want, got) or compared(want, whole)
    return '' if problem and on_the_edge(records, own) else problem


def _in_words(error: Exception) -> str:
    """Type and first line of an error of the backbone's own code."""
    lines = str(error).strip().splitlines() or ['']
    return f'{type(error).__name__}: {lines[0]}'


@torch.no_grad()
def _answer(model: GatedImageClassifier, images: Tensor) -> Answer:
    feats, records = model._extract_gated(images)
    scores = model.head(feats) if model.with_head else feats
    return flat(scores), records
