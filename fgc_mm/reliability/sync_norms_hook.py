"""Makes all ranks test the network that rank 0 saves."""

from __future__ import annotations

from mmengine.dist import all_reduce_params, get_world_size
from mmengine.hooks import EMAHook, Hook
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from fgc_mm.registry import HOOKS


@HOOKS.register_module()
class SyncNormsHook(Hook):
    """Averages the running means and variances of norms over the ranks.

    A BatchNorm of the backbone or of a gate counts the images of its rank
    only, so without the hook W ranks validate W networks, of which that of
    rank 0 is saved. The hook averages at the end of an epoch, before a
    validation and before ``SafeCheckpointHook`` saves. The averages are
    linear in the statistics of the batches, so it does not matter when they
    are taken, up to rounding.

    mmengine's ``SyncBuffersHook`` averages all buffers, with the counters
    and thresholds of methods, but neither those of an ``EMAHook`` nor those
    that are saved within an epoch.
    """

    def after_train_epoch(self, runner: Runner) -> None:
        """Average before the checkpoint of the epoch."""
        self.average_norms(runner)

    def before_val_epoch(self, runner: Runner) -> None:
        """Average before a validation."""
        self.average_norms(runner)

    def average_norms(self, runner: Runner) -> None:
        """Average; every rank calls this."""
        if get_world_size() == 1:
            return
        models = [runner.model]
        for hook in runner.hooks:
            if isinstance(hook, EMAHook):
                models.append(hook.ema_model)
        statistics = [x for model in models for x in _statistics(model)]
        all_reduce_params(statistics, op='mean')


def _statistics(model: nn.Module) -> list[Tensor]:
    """The running means and variances, where a norm has them."""
    norms = [x for x in model.modules() if isinstance(x, _NormBase)]
    found = [
        x for norm in norms for x in (norm.running_mean, norm.running_var)
    ]
    return [x for x in found if x is not None]
