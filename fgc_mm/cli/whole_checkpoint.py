"""A test loads every weight of the model, or ends with an error."""

import re

from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import Runner

from fgc_mm.deploy.loading import check_whole
from fgc_mm.sites.site import rename_old_keys


class WholeCheckpointHook(Hook):
    """Refuses the checkpoint of another network.

    mmengine loads the weights that fit and keeps the random ones of all
    others, which a test would report as a result.
    """

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare the names and shapes of all weights."""
        model = runner.model
        if is_model_wrapper(model) or isinstance(model, BaseTTAModel):
            model = model.module
        state = {
            re.sub(r'^module\.', '', key): value
            for key, value in checkpoint.get('state_dict', checkpoint).items()
        }
        check_whole(model, rename_old_keys(state), runner.cfg.load_from)
