"""Stops training when a loss is nan or inf."""

from __future__ import annotations

from math import isfinite
from typing import Any, NamedTuple

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor

from fgc_mm.async_read import AsyncRead, read_would_block
from fgc_mm.errors import FGCError
from fgc_mm.registry import HOOKS


class _Step(NamedTuple):
    """A step whose losses have not been checked."""

    epoch: int
    iteration: int
    total: AsyncRead
    losses: dict[str, Any]


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Raises an error in a step whose loss is nan or inf.

    No checkpoint is written after that step. On a CPU the run ends in the
    same step; on an accelerator, where reading a loss waits for the device,
    after the next step, but before an epoch ends or a checkpoint is written.
    """

    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        self._unchecked: _Step | None = None

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
            total = AsyncRead(detached['loss'])
            self._unchecked = _Step(*number, total, detached)
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
        if step is not None and not isfinite(step.total.get()):
            _check_finite(step.losses, step.epoch, step.iteration)


def _check_finite(losses: dict, epoch: int, iteration: int) -> None:
    values = _not_finite(losses)
    if values:
        what = ' and '.join(f'{k} is {v:.6g}' for k, v in values.items())
        raise FGCError(
            f'{what} at epoch {epoch}, iteration {iteration}: training needs '
            'finite losses; check the images of this step and lower the '
            'learning rate, then --resume from the last checkpoint.'
        )


def _not_finite(losses: dict) -> dict[str, float]:
    """The losses that are not finite; the total only if no part is."""
    values = {
        name: float(torch.as_tensor(value).detach())
        for name, value in losses.items()
    }
    found = {k: v for k, v in values.items() if not isfinite(v)}
    parts = {name: value for name, value in found.items() if name != 'loss'}
    return parts or found
