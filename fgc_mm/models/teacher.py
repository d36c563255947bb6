"""A trained network whose answers another one learns from."""

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import load_checkpoint
from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS
from torch import Tensor, nn

from fgc_mm.errors import FGCError
from fgc_mm.models.class_scores import class_scores, independent_labels


class Teacher:
    """A frozen classifier; no module, so nobody trains, saves or moves it.

    Args:
        model: Its config: a dict, or the path of a config file.
        checkpoint: Path of its weights; without one the model can be built
            and tested, but it cannot learn.

    Raises:
        FGCError: The checkpoint lacks one of its weights.
    """

    def __init__(
        self, model: str | Mapping[str, Any], checkpoint: str | None
    ) -> None:
        if isinstance(model, str):
            model = Config.fromfile(model).model
        self.name = checkpoint
        self.network = MMPRETRAIN_MODELS.build(dict(model))
        if checkpoint is not None:
            _load(self.network, checkpoint)
        self.network.requires_grad_(False)
        self.network.eval()

    def check_same_classes(self, head: nn.Module) -> None:
        """Raise FGCError unless both tell the same classes, the same way."""
        theirs = getattr(self.network.head, 'num_classes', None)
        ours = getattr(head, 'num_classes', None)
        if theirs != ours:
            raise FGCError(
                f'the teacher {self.name} tells {theirs} classes and the '
                f'student {ours}; take a teacher that was trained for the '
                'same classes.'
            )

        kinds = [independent_labels(x) for x in (self.network.head, head)]
        if kinds[0] != kinds[1]:
            names = ['labels of their own', 'classes that exclude each other']
            raise FGCError(
                f'the teacher {self.name} tells {names[not kinds[0]]} and '
                f'the student {names[not kinds[1]]}; take a teacher that was '
                'trained with the same kind of head and loss.'
            )

    @torch.no_grad()
    def scores(self, inputs: Tensor) -> Tensor:
        """Its answers to a batch; (N, classes), before the softmax.

        Raises:
            FGCError: It was given no weights.
        """
        if self.name is None:
            raise FGCError(
                'the distillation has no checkpoint of its teacher '
                '(checkpoint=None), which tools/train.py takes from '
                'load_from when a run begins; give --cfg-options '
                'model.distillation.checkpoint=PATH.'
            )
        if next(self.network.parameters()).device != inputs.device:
            self.network.to(inputs.device)
        features = self.network.extract_feat(inputs)
        return class_scores(self.network.head, features, 'distillation')

    def __deepcopy__(self, memo: dict) -> 'Teacher':
        """Itself: a copy of the student learns from the same one."""
        return self


def _load(network: nn.Module, checkpoint: str) -> None:
    loaded = load_checkpoint(network, checkpoint, map_location='cpu')
    given = loaded.get('state_dict', loaded)
    for name, value in network.state_dict().items():
        if name not in given or given[name].shape != value.shape:
            raise FGCError(
                f'{checkpoint} has no {name} of shape {tuple(value.shape)}, '
                'which the teacher needs; give the checkpoint of the '
                "teacher's own config."
            )
