"""Comparing a dynamic model with the masked one, image by image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fgc_mm.deploy.comparing import (
    TOLERANCE,
    Masked,
    ModelOutput,
    model_output,
    output_difference,
    records_of_image,
)
from fgc_mm.deploy.firing import gated_backbone
from fgc_mm.deploy.graph.batch import mixes_images
from fgc_mm.deploy.graph.mask_check import constant_mask_problem
from fgc_mm.deploy.graph.network import modules_after
from fgc_mm.errors import FGCError
from fgc_mm.runtime.errors import error_line
from fgc_mm.sites.call import tensors

MAX_IMAGES = 4


class Reference:
    """Outputs of the masked model for some images, to compare with.

    Args:
        model: The masked classifier or backbone, in evaluation; it is not
            changed.
        images: (N, 3, H, W); the first ``MAX_IMAGES`` are used.
    """

    def __init__(self, model: Masked, images: Tensor) -> None:
        self._masked = model
        self._images = images[:MAX_IMAGES].split(1)
        self._outputs = [model_output(model, one) for one in self._images]

    def problem_of_programs(self, dynamic: Any) -> str:
        """Why the model cannot run as a program; '' if it can."""
        model, image = self._masked, self._images[0]
        gated = gated_backbone(model)
        following = () if gated is model else modules_after(model)
        if self._outputs_depend_on_batch() or mixes_images(
            gated, image, following
        ):
            return 'images of a batch depend on each other'
        return self.problem(dynamic) or self._constant_mask_problem(dynamic)

    def _outputs_depend_on_batch(self) -> bool:
        """Whether outputs differ between a batch and its images alone."""
        image = self._images[0]
        # small values beside large ones of both signs
        batch = torch.cat([-5 * image, image, 5 * image + 0.1])
        outputs, records = model_output(self._masked, batch)
        for number, one in enumerate(batch.split(1)):
            alone = model_output(self._masked, one)
            if not all(x.isfinite().all() for x in alone[0]):
                continue  # e.g. the root of a negative number
            together = [x[number : number + 1] for x in outputs]
            own = records_of_image(records, number)
            if output_difference(alone, (together, own)):
                return True
        return False

    def verify(self, dynamic: Any, tolerance: float = TOLERANCE) -> None:
        """Raise FGCError if a model's outputs differ.

        Args:
            dynamic: The model.
            tolerance: Largest difference of outputs and of the gates' logits,
                relative to the largest one.
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

    def _constant_mask_problem(self, dynamic: Any) -> str:
        """How the outputs differ with constant masks; '' if they do not."""
        image, backbone = self._images[0], gated_backbone(dynamic)
        model, masked = self._masked, gated_backbone(self._masked)
        program = None if dynamic is backbone else dynamic.program(image)
        if program is None:  # the head runs as a module
            model, program = masked, backbone.program_of(image)
        return constant_mask_problem(program.graph, model, masked, image)


def _problem(
    dynamic: Any, image: Tensor, output: ModelOutput, tolerance: float
) -> str:
    """How the outputs differ, unless rounding changed a decision."""
    try:
        got = model_output(dynamic, image)
        # the call from images to logits is another program
        whole = tensors(dynamic(image)), got[1]
    except Exception as error:
        return error_line(error)
    return output_difference(output, got, tolerance) or output_difference(
        output, whole, tolerance
    )
