"""The teacher of knowledge distillation."""

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import CheckpointLoader
from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS
from torch import Tensor, nn

from fgc_mm.errors import FGCError
from fgc_mm.models.class_scores import class_scores, independent_labels
from fgc_mm.reliability.whole_checkpoint import load_whole


class Teacher:
    """A frozen classifier that is not a submodule of its student.

    So it is not trained, saved or moved with the student.

    Args:
        model: Its config: a dict, or the path of a config file.
        checkpoint: Path of its weights; with ``None`` the student can be
            built and tested, but not trained.

    Raises:
        FGCError: The checkpoint is that of another network.
    """

    def __init__(
        self, model: str | Mapping[str, Any], checkpoint: str | None
    ) -> None:
        named = isinstance(model, str)
        settings: Any = Config.fromfile(model).model if named else model
        self.name = checkpoint
        self._title = ' '.join(['the teacher', *filter(None, [checkpoint])])
        self.network = MMPRETRAIN_MODELS.build(dict(settings))
        if checkpoint is not None:
            loaded = CheckpointLoader.load_checkpoint(checkpoint, 'cpu')
            state = loaded.get('state_dict', loaded)
            load_whole(self.network, state, checkpoint)
        self.network.requires_grad_(False)
        self.network.eval()

    def check_same_classes(self, head: nn.Module) -> None:
        """Raise FGCError unless both have the same classes and kind."""
        theirs = getattr(self.network.head, 'num_classes', None)
        ours = getattr(head, 'num_classes', None)
        if theirs != ours:
            raise FGCError(
                f'{self._title} has {theirs} classes and the '
                f'student {ours}; use a teacher that was trained for the '
                'same classes.'
            )

        kinds = [independent_labels(x) for x in (self.network.head, head)]
        if kinds[0] != kinds[1]:
            names = ['independent labels', 'exclusive classes']
            raise FGCError(
                f'{self._title} has {names[not kinds[0]]} and the '
                f'student {names[not kinds[1]]}; use a teacher that was '
                'trained with the same kind of head and loss.'
            )

    @torch.no_grad()
    def scores(self, inputs: Tensor) -> Tensor:
        """Its scores of a batch; (N, classes), before the softmax.

        Raises:
            FGCError: It has no weights.
        """
        if self.name is None:
            raise FGCError(
                'the distillation has no checkpoint of its teacher '
                '(checkpoint=None), for which tools/train.py uses load_from '
                'when a run begins; give --cfg-options '
                'model.distillation.checkpoint=PATH.'
            )
        if next(self.network.parameters()).device != inputs.device:
            self.network.to(inputs.device)
        features = self.network.extract_feat(inputs)
        return class_scores(self.network.head, features, 'distillation')

    def __deepcopy__(self, memo: dict) -> 'Teacher':
        """Itself: copies of the student share the teacher."""
        return self
