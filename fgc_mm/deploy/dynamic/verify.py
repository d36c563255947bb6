"""Comparing a dynamic model with the masked one, image by image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fgc_mm.deploy.changed_masks import MASK_PATTERNS, constant_masks
from fgc_mm.deploy.comparing import (
    TOLERANCE,
    difference,
    differs_by_rounding,
    flatten_tensors,
    records_of_image,
)
from fgc_mm.deploy.dynamic.programs import ExecutableProgram
from fgc_mm.deploy.graph.batch import mixes_images
from fgc_mm.deploy.graph.interpreter import interpret
from fgc_mm.errors import FGCError
from fgc_mm.models import GatedBackbone, GatedImageClassifier
from fgc_mm.sites import GateRecord

Masked = GatedImageClassifier | GatedBackbone
# Output tensors of a model for some images, and its gate records.
ModelOutput = tuple[list[Tensor], list[GateRecord]]


class Reference:
    """Outputs of the masked model for some images, to compare with.

    Args:
        model: The masked classifier or backbone, in evaluation; it is not
            changed.
        images: (N, 3, H, W).
        max_images: Maximum number of images used.
    """

    def __init__(
        self, model: Masked, images: Tensor, max_images: int = 4
    ) -> None:
        self._masked = model
        self._images = images[:max_images].split(1)
        self._outputs = [_run_model(self._masked, one) for one in self._images]

    def problem_of_programs(self, dynamic: Any) -> str:
        """Why the model cannot run as a program; '' if it can."""
        return (
            self._batch_problem()
            or self.problem(dynamic)
            or self.constant_mask_problem(dynamic)
        )

    def _batch_problem(self) -> str:
        """Whether an image of a batch changes another image's outputs."""
        model, image = self._masked, self._images[0]
        gated = _backbone_of(model)
        if self._outputs_depend_on_batch() or mixes_images(
            gated, image, () if gated is model else _modules_after(model)
        ):
            return 'images of a batch depend on each other'
        return ''

    def _outputs_depend_on_batch(self) -> bool:
        """Whether outputs differ between a batch and its images alone."""
        image = self._images[0]
        # small values beside large ones of both signs
        batch = torch.cat([-5 * image, image, 5 * image + 0.1])
        outputs, records = _run_model(self._masked, batch)
        for number, one in enumerate(batch.split(1)):
            alone, own = _run_model(self._masked, one)
            together = [x[number : number + 1] for x in outputs]
            if difference(alone, together) and not differs_by_rounding(
                own, records_of_image(records, number)
            ):
                return True
        return False

    def verify(self, dynamic: Any, tolerance: float = TOLERANCE) -> None:
        """Refuse a model that differs.

        Args:
            dynamic: The model.
            tolerance: Of outputs and of the gates' logits, relative to the
                largest one.

        Raises:
            FGCError: The outputs differ; has the largest difference.
        """
        problem = self.problem(dynamic, tolerance)
        if problem:
            exact = tolerance == TOLERANCE
            remedy = 'the masked model' if exact else "precision='float32'"
            raise FGCError(
                'dynamic execution and the masked model have different '
                f'outputs ({problem}), so it is refused; use {remedy}.'
            )

    def problem(self, dynamic: Any, tolerance: float = TOLERANCE) -> str:
        """How the outputs differ on the images; '' if they do not."""
        for image, output in zip(self._images, self._outputs):
            problem = _problem(dynamic, image, output, tolerance)
            if problem:
                return problem
        return ''

    def constant_mask_problem(self, dynamic: Any) -> str:
        """How the outputs differ with constant masks; '' if they do not.

        The gates may happen to open everything on the images; so constant
        masks are tried at every site: every other channel, one, none. The
        graph runs in its interpreter, where channels that are not computed
        are nan.
        """
        program = _whole_program(dynamic, self._images[0])
        if program is None:
            return ''
        sites = _backbone_of(dynamic).sites
        image = self._images[0]
        for name, opened in MASK_PATTERNS.items():
            with constant_masks(_backbone_of(self._masked), opened):
                want = _logits_if_any(self._masked, image)
            if want is None:
                continue
            masks = [opened(site.channels)[None].float() for site in sites]
            values = interpret(program.graph, image, masks)
            got = [values[node] for node in program.graph.outputs]
            problem = difference(want, got)
            if problem:
                return f'{problem} ({name} mask)'
        return ''


def _backbone_of(model: Masked) -> GatedBackbone:
    return model if isinstance(model, GatedBackbone) else model.backbone


def _modules_after(model: Any) -> list[nn.Module]:
    """The neck and the head of a classifier, as far as it has them."""
    parts = (getattr(model, name, None) for name in ('neck', 'head'))
    return [part for part in parts if part is not None]


def _whole_program(dynamic: Any, image: Tensor) -> ExecutableProgram | None:
    """The program that a call of the model runs, if there is one."""
    if isinstance(dynamic, GatedBackbone):
        return dynamic.program_of(image)
    return dynamic.program(image)


def _logits_if_any(model: Masked, images: Tensor) -> list[Tensor] | None:
    """``None`` if the masked model fails or its outputs are not finite."""
    try:
        logits = _run_model(model, images)[0]
    except Exception:  # e.g. it accepts images of one size only
        return None
    return logits if all(x.isfinite().all() for x in logits) else None


def _problem(
    dynamic: Any, image: Tensor, output: ModelOutput, tolerance: float
) -> str:
    """How the outputs differ, unless rounding changed a decision."""
    want, records = output
    try:
        got, own = _run_model(dynamic, image)
        # the call from images to logits is another program
        whole = flatten_tensors(dynamic(image))
    except Exception as error:
        return _error_line(error)
    problem = difference(want, got, tolerance)
    problem = problem or difference(want, whole, tolerance)
    rounded = problem and differs_by_rounding(records, own, tolerance)
    return '' if rounded else problem


def _error_line(error: Exception) -> str:
    """Type and first line of an error of the backbone's own code."""
    lines = str(error).strip().splitlines() or ['']
    return f'{type(error).__name__}: {lines[0]}'


@torch.no_grad()
def _run_model(model: Masked, images: Tensor) -> ModelOutput:
    if isinstance(model, GatedBackbone):
        outputs, records = model.forward_gated(images)
        return flatten_tensors(outputs), records
    feats, records = model._extract_gated(images)
    scores = model.head(feats) if model.with_head else feats
    return flatten_tensors(scores), records
