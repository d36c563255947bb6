"""A constant learning rate for the gates."""

from mmengine.hooks import Hook
from mmengine.runner import Runner

from fgc_mm.engine.joined_groups import gate_parameters
from fgc_mm.engine.loss_progress_hook import (
    is_schedule_preview,
    unwrapped_model,
)
from fgc_mm.errors import FGCError
from fgc_mm.functional.number import is_number
from fgc_mm.registry import HOOKS


@HOOKS.register_module()
class GateLRHook(Hook):
    """Keeps the learning rate of all gates constant.

    The schedulers of a config change the rate of every parameter group; FTWT
    trains its predictors at 0.1 throughout, while the backbone's rate decays
    (arXiv 2110.08232, section 4.1). The gates must be in parameter groups
    without parameters of the backbone; any setting for them in
    ``paramwise_cfg`` creates such groups.

    Args:
        lr: The rate.

    Raises:
        FGCError: The rate is not positive; before training: gates share a
            parameter group with the backbone.
    """

    priority = 'VERY_LOW'

    def __init__(self, lr: float) -> None:
        if not (is_number(lr) and lr > 0):
            raise FGCError(
                f'lr={lr!r} of GateLRHook is not positive; the published one '
                'is 0.1.'
            )
        self.lr = lr
        self._groups: list[dict] = []

    def before_train(self, runner: Runner) -> None:
        """Find the gates' parameter groups."""
        if is_schedule_preview(runner):
            return
        own = gate_parameters(unwrapped_model(runner))
        for group in runner.optim_wrapper.param_groups:
            inside = [id(p) in own for p in group['params']]
            if any(inside) and not all(inside):
                raise FGCError(
                    'GateLRHook finds gates and backbone in one parameter '
                    'group; give the gates separate settings, as in '
                    "paramwise_cfg=dict(custom_keys={'backbone.gates': "
                    'dict(decay_mult=0.0)}).'
                )
            if any(inside):
                self._groups.append(group)

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        """Set the rate of the gates, which the schedulers may have changed."""
        for group in self._groups:
            group['lr'] = self.lr
