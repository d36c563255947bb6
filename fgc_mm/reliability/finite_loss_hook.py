"""Stops training when a loss is nan or inf."""

from __future__ import annotations

from math import isfinite

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor

from fgc_mm.async_read import AsyncRead, read_would_block
from fgc_mm.errors import FGCError
from fgc_mm.registry import HOOKS


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Raises an error in a step whose loss is nan or inf.

    No checkpoint is written after that step. On a CPU the run ends in the
    same step; on an accelerator, where reading a loss waits for the device,
    after the next step, but before an epoch ends or a checkpoint is written.
    """

    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        # a step's total, losses, epoch and iteration
        self._unchecked: tuple[AsyncRead, dict, int, int] | None = None

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Check the losses of this step, or on an accelerator of the last.

        Raises:
            FGCError: One of them is not finite.
        """
        self._check_last_step()
        losses = {k: v for k, v in (outputs or {}).items() if 'loss' in k}
        number = runner.epoch + 1, runner.iter + 1
        total = losses.get('loss')
        if isinstance(total, Tensor) and read_would_block(total):
            detached = {
                name: value.detach() if isinstance(value, Tensor) else value
                for name, value in losses.items()
            }
            self._unchecked = AsyncRead(detached['loss']), detached, *number
        else:
            _check_finite(losses, *number)

    def after_train_epoch(self, runner: Runner) -> None:
        """Check the last step."""
        self._check_last_step()

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Check the last step."""
        self._check_last_step()

    def _check_last_step(self) -> None:
        step, self._unchecked = self._unchecked, None
        if step is not None:
            total, losses, epoch, iteration = step
            if not isfinite(total.get()):
                _check_finite(losses, epoch, iteration)


def _check_finite(losses: dict, epoch: int, iteration: int) -> None:
    values = {
        name: float(torch.as_tensor(value).detach())
        for name, value in losses.items()
    }
    found = {k: v for k, v in values.items() if not isfinite(v)}
    if found:
        parts = {k: v for k, v in found.items() if k != 'loss'}
        named = parts or found  # the total only if every part is finite
        what = ' and '.join(f'{k} is {v:.6g}' for k, v in named.items())
        raise FGCError(
            f'{what} at epoch {epoch}, iteration {iteration}: training needs '
            'finite losses; check the images of this step and lower the '
            'learning rate, then --resume from the last checkpoint.'
        )
