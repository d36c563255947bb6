"""No training on a loss that is not a number."""

from __future__ import annotations

from math import isfinite

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from fgc_mm.errors import FGCError
from fgc_mm.registry import HOOKS


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Ends the run in the step whose loss is nan or inf, and names it.

    The step is in no checkpoint then. mmengine's own hooks read the value of
    every loss in every step, so looking at it costs nothing more.
    """

    priority = 'VERY_HIGH'

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Look at the losses.

        Raises:
            FGCError: One of them is not finite.
        """
        broken = _broken(outputs or {})
        if broken:
            what = ' and '.join(f'{k} is {v:.6g}' for k, v in broken.items())
            raise FGCError(
                f'{what} at epoch {runner.epoch + 1}, iteration '
                f'{runner.iter + 1}: training goes on only with finite '
                'losses; look at the images of this step and lower the '
                'learning rate, then --resume from the last checkpoint.'
            )


def _broken(outputs: dict) -> dict[str, float]:
    """The losses that are not finite; their total only if it stands alone."""
    losses = {
        name: float(torch.as_tensor(value).detach())
        for name, value in outputs.items()
        if 'loss' in name
    }
    found = {k: v for k, v in losses.items() if not isfinite(v)}
    parts = {name: value for name, value in found.items() if name != 'loss'}
    return parts or found
