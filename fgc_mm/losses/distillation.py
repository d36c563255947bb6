"""Knowledge distillation from the dense network."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fgc_mm.errors import FGCError
from fgc_mm.functional.number import is_number
from fgc_mm.functional.schedule import Progress, Schedule


class DistillationLoss(nn.Module):
    """``T^2 KL(teacher || student)`` of softened class probabilities.

    Source: Hinton et al., "Distilling the knowledge in a neural network"
    (2015), section 2. For independent labels it is the divergence of two
    Bernoulli distributions per class, summed over the classes, because a
    softmax does not change if a constant is added to all scores, but the
    labels do. The teacher is not part of this module, so it is neither
    trained nor saved.

    Args:
        temperature: T.
        loss_weight: A number or a scheduled weight.
        independent_labels: Whether the head has a sigmoid per class instead
            of a softmax.

    Shapes: two times (N, classes), before the softmax -> ().
    """

    def __init__(
        self,
        temperature: float = 4.0,
        loss_weight: float | Mapping[str, Any] = 1.0,
        independent_labels: bool = False,
    ) -> None:
        super().__init__()
        if not (is_number(temperature) and temperature > 0):
            raise FGCError(
                f'temperature={temperature!r} of the distillation is not '
                'positive; 4 is usual.'
            )
        self.temperature = temperature
        self.independent_labels = independent_labels
        self.loss_weight = Schedule.build(loss_weight)

    def forward(
        self,
        student: Tensor,
        teacher: Tensor,
        progress: Progress | None = None,
    ) -> Tensor:
        """The weighted loss; a scheduled weight needs the progress."""
        softmax = partial(F.log_softmax, dim=1)
        log_probs = _per_label if self.independent_labels else softmax
        soft = F.kl_div(
            log_probs(student.float() / self.temperature),
            log_probs(teacher.float() / self.temperature),
            reduction='batchmean',
            log_target=True,
        )
        weight = self.loss_weight.at(progress)
        return weight * self.temperature**2 * soft


def _per_label(scores: Tensor) -> Tensor:
    """Log-probabilities of each label and its complement; (N, 2 classes)."""
    return torch.cat([F.logsigmoid(scores), F.logsigmoid(-scores)], dim=1)
