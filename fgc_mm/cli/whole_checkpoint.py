"""A test loads every weight of the model, or ends with an error."""

import re
from collections import OrderedDict
from typing import Any

from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import Runner

from fgc_mm.errors import FGCError

# counters that nothing reads, and state of losses, which only train
NOT_NEEDED = re.compile(r'(^|\.)num_batches_tracked$|^gate_losses\.')


class WholeCheckpointHook(Hook):
    """Refuses the checkpoint of another network.

    mmengine loads the weights that fit and keeps the random ones of all
    others, which a test would report as a result.
    """

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Load the weights, as mmengine does next, and compare their names.

        Raises:
            FGCError: A weight is missing, unknown, or of another shape.
        """
        model = runner.model
        while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
            model = model.module
        given = checkpoint.get('state_dict', checkpoint)
        state: Any = OrderedDict(
            (re.sub(r'^module\.', '', name), value)
            for name, value in given.items()
        )
        # which the model's own loading reads
        state._metadata = getattr(given, '_metadata', None)
        try:
            found = model.load_state_dict(state, strict=False)
        except RuntimeError as error:  # shapes
            wrong = str(error).splitlines()[-1].strip()
        else:
            missing, unknown = (
                [name for name in names if not NOT_NEEDED.search(name)]
                for names in (found.missing_keys, found.unexpected_keys)
            )
            first = [*missing, *unknown, ''][0]
            wrong = first and (
                f'{len(missing)} weights of this model are missing, and '
                f'{len(unknown)} are unknown to it ({first}, ...)'
            )
        if wrong:
            raise FGCError(
                f'{runner.cfg.load_from} is a checkpoint of another config: '
                f'{wrong}; give the config that it was trained with.'
            )
