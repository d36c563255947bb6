"""Loading every weight of a network, or none of another network's."""

import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from fgc_mm.errors import FGCError

# counters that nothing reads, and state of losses, which only train
NOT_NEEDED = re.compile(r'(^|\.)num_batches_tracked$|^gate_losses\.')


def load_whole(model: nn.Module, given: Mapping[str, Any], name: str) -> None:
    """Load a complete state dict into a model.

    The names are compared by loading, so what the model's own loading
    changes fits: names of an earlier version, position embeddings for images
    of another size.

    Args:
        model: The model, without a wrapper.
        given: Its state dict, with or without ``module.`` before the names.
        name: Name of the file in messages.

    Raises:
        FGCError: A weight is missing, unknown, or of another shape.
    """
    state: Any = OrderedDict(
        (re.sub(r'^module\.', '', key), value) for key, value in given.items()
    )
    # which the model's own loading reads
    state._metadata = getattr(given, '_metadata', None)
    try:
        found = model.load_state_dict(state, strict=False)
    except FGCError as error:  # of the model's own loading, with a remedy
        raise FGCError(
            f'{name} is a checkpoint of another config: {error}'
        ) from error
    except RuntimeError as error:  # shapes
        wrong = str(error).splitlines()[-1].strip()
    else:
        missing, unknown = (
            [key for key in keys if not NOT_NEEDED.search(key)]
            for keys in (found.missing_keys, found.unexpected_keys)
        )
        first = [*missing, *unknown, ''][0]
        wrong = first and (
            f'{len(missing)} weights of this model are missing, and '
            f'{len(unknown)} are unknown to it ({first}, ...)'
        )
    if wrong:
        raise FGCError(
            f'{name} is a checkpoint of another config: {wrong}; give the '
            'config that it was trained with.'
        )


class WholeCheckpointHook(Hook):
    """Refuses to test with the checkpoint of another network.

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
        state = checkpoint.get('state_dict', checkpoint)
        load_whole(model, state, str(runner.cfg.load_from))
