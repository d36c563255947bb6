"""Learning from the dense network's answers."""

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from fgc_mm.errors import FGCError
from fgc_mm.functional.schedule import Progress, Schedule


class DistillationLoss(nn.Module):
    """``T^2 KL(teacher || student)`` of softened class probabilities.

    Source: Hinton et al., "Distilling the knowledge in a neural network"
    (2015), section 2. The teacher is no part of this module: it is neither
    trained nor saved.

    Args:
        temperature: T.
        loss_weight: A number or a weight that moves.

    Shapes: two times (N, classes), before the softmax -> ().
    """

    def __init__(
        self,
        temperature: float = 4.0,
        loss_weight: float | Mapping[str, Any] = 1.0,
    ) -> None:
        super().__init__()
        if not temperature > 0:
            raise FGCError(
                f'temperature={temperature} of the distillation is not '
                'positive; the usual one is 4.'
            )
        self.temperature = temperature
        self.loss_weight = Schedule.build(loss_weight)
        self.progress: Progress | None = None

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The weighted loss."""
        soft = F.kl_div(
            (student.float() / self.temperature).log_softmax(dim=1),
            (teacher.float() / self.temperature).log_softmax(dim=1),
            reduction='batchmean',
            log_target=True,
        )
        weight = self.loss_weight.at(self.progress)
        return weight * self.temperature**2 * soft
