"""Losses are read from the device when they are printed, not in every step."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.hooks import LoggerHook, RuntimeInfoHook
from mmengine.runner import Runner
from torch import Tensor

from fgc_mm.memory import read_would_block
from fgc_mm.registry import HOOKS


@HOOKS.register_module()
class LoggedValuesHook(RuntimeInfoHook):
    """``RuntimeInfoHook`` that does not wait for an accelerator in each step.

    Upstream's reads every value of every step at once, and each read waits
    until the device has done the step. Here the values stay on the device
    until a ``LoggerHook`` prints, an epoch ends or a checkpoint is written;
    then all are read by one copy. The log has the same values. On a CPU, where
    nothing waits, they are read at once.
    """

    def __init__(self) -> None:
        self._kept: list[tuple[str, Any]] = []

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Keep the step's values, and pass on all where they are due."""
        values = [
            (key, value.detach() if isinstance(value, Tensor) else value)
            for key, value in (outputs or {}).items()
        ]
        self._kept += values
        late = any(_is_tensor(v) and read_would_block(v) for _, v in values)
        if not late or self._due(runner, batch_idx):
            self.flush(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        """Pass on what is left."""
        self.flush(runner)

    def before_val(self, runner: Runner) -> None:
        """Pass on what is left; validation may come within an epoch."""
        self.flush(runner)
        super().before_val(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """The checkpoint's log has all steps."""
        if self._kept:
            self.flush(runner)
            checkpoint['message_hub'] = runner.message_hub.state_dict()

    def flush(self, runner: Runner) -> None:
        """Read all values that are kept, and put them into the log."""
        kept, self._kept = self._kept, []
        late = [value.reshape(()) for _, value in kept if _is_tensor(value)]
        read = iter(torch.stack(late).tolist() if late else ())
        for key, value in kept:
            value = next(read) if _is_tensor(value) else value
            runner.message_hub.update_scalar(f'train/{key}', value)

    def _due(self, runner: Runner, batch_idx: int) -> bool:
        if self.end_of_epoch(runner.train_dataloader, batch_idx):
            return True
        loggers = [x for x in runner.hooks if isinstance(x, LoggerHook)]
        return any(
            self.every_n_inner_iters(batch_idx, logger.interval)
            for logger in loggers
        )


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor) and value.numel() == 1
