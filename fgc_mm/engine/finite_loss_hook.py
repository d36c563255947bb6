"""No training on a loss that is not a number."""

from __future__ import annotations

from math import isfinite
from typing import Any, NamedTuple

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor

from fgc_mm.errors import FGCError
from fgc_mm.memory import AsyncRead, read_would_block
from fgc_mm.registry import HOOKS


class _Step(NamedTuple):
    """A step whose losses have not been looked at."""

    epoch: int
    iteration: int
    total: AsyncRead
    losses: dict[str, Any]


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Ends the run at a step whose loss is nan or inf, and names it.

    The step is in no checkpoint then. On a CPU the run ends in that step; on
    an accelerator, where a look at a loss waits for the device, after the
    next one, but before an epoch ends or a checkpoint is written.
    """

    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        self._late: _Step | None = None

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
        self._look()
        losses = {k: v for k, v in (outputs or {}).items() if 'loss' in k}
        place = runner.epoch + 1, runner.iter + 1
        total = losses.get('loss')
        if isinstance(total, Tensor) and read_would_block(total):
            kept = {
                name: value.detach() if isinstance(value, Tensor) else value
                for name, value in losses.items()
            }
            self._late = _Step(*place, AsyncRead(kept['loss']), kept)
        else:
            _refuse_broken(losses, *place)

    def after_train_epoch(self, runner: Runner) -> None:
        """Look at the last step."""
        self._look()

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Look at the last step."""
        self._look()

    def _look(self) -> None:
        late, self._late = self._late, None
        if late is not None and not isfinite(late.total.get()):
            _refuse_broken(late.losses, late.epoch, late.iteration)


def _refuse_broken(losses: dict, epoch: int, iteration: int) -> None:
    broken = _broken(losses)
    if broken:
        what = ' and '.join(f'{k} is {v:.6g}' for k, v in broken.items())
        raise FGCError(
            f'{what} at epoch {epoch}, iteration {iteration}: training goes '
            'on only with finite losses; look at the images of this step and '
            'lower the learning rate, then --resume from the last checkpoint.'
        )


def _broken(losses: dict) -> dict[str, float]:
    """The losses that are not finite; their total only if it stands alone."""
    values = {
        name: float(torch.as_tensor(value).detach())
        for name, value in losses.items()
    }
    found = {k: v for k, v in values.items() if not isfinite(v)}
    parts = {name: value for name, value in found.items() if name != 'loss'}
    return parts or found
