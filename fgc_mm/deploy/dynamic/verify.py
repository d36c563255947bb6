"""Is a dynamic model the masked one? Logits and decisions, image by image."""

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

# What a model gives to some images, and what its gates decided.
Answer = tuple[list[Tensor], list[GateRecord]]


class Reference:
    """What the masked model says about some images.

    Args:
        model: The masked model, in evaluation; it stays as it is.
        images: (N, 3, H, W).
        most: How many images are asked about.
    """

    def __init__(
        self, model: GatedImageClassifier, images: Tensor, most: int = 4
    ) -> None:
        self._masked = model
        self._images = images[:most].split(1)
        self._answers = [_answer(self._masked, one) for one in self._images]

    def problem_of_programs(self, dynamic: Any) -> str:
        """Why the model cannot run as a program, in words; '' if it can."""
        return (
            self._batch_problem()
            or self.problem(dynamic)
            or self.forced_problem(dynamic)
        )

    def _batch_problem(self) -> str:
        """Whether an image of a batch changes what another one gives."""
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

    def forced_problem(self, dynamic: Any) -> str:
        """What is wrong with given channels open, in words; '' if nothing.

        The gates may happen to open everything on the images; so constant
        masks are tried at every site: every other channel, one, none. The
        graph is run by its interpreter, to which a channel that is not
        computed is nan.
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
