"""Reads losses from the device when they are logged, not in every step."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.hooks import LoggerHook, RuntimeInfoHook
from mmengine.runner import Runner
from torch import Tensor

from fgc_mm.async_read import read_would_block
from fgc_mm.registry import HOOKS


@HOOKS.register_module()
class LoggedValuesHook(RuntimeInfoHook):
    """``RuntimeInfoHook`` that does not wait for an accelerator in each step.

    Upstream's hook reads every value in every step, and each read waits until
    the device has finished the step. Here the values stay on the device until
    a ``LoggerHook`` prints, an epoch ends or a checkpoint is written; then one
    copy reads them all. The log has the same values. On a CPU, where a read
    does not wait, they are read at once.
    """

    def __init__(self) -> None:
        self._stored: list[tuple[str, Any]] = []

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Store the step's values; log all stored values if they are due."""
        values = [
            (key, value.detach() if isinstance(value, Tensor) else value)
            for key, value in (outputs or {}).items()
        ]
        self._stored += values
        blocks = any(_is_tensor(v) and read_would_block(v) for _, v in values)
        if not blocks or self._due(runner, batch_idx):
            self.flush(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        """Log the stored values."""
        self.flush(runner)

    def before_val(self, runner: Runner) -> None:
        """Log the stored values; validation may run within an epoch."""
        self.flush(runner)
        super().before_val(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Include the values of all steps in the checkpoint's log."""
        if self._stored:
            self.flush(runner)
            checkpoint['message_hub'] = runner.message_hub.state_dict()

    def flush(self, runner: Runner) -> None:
        """Read all stored values, and put them into the log."""
        stored, self._stored = self._stored, []
        pending = [v.reshape(()) for _, v in stored if _is_tensor(v)]
        read = iter(torch.stack(pending).tolist() if pending else ())
        for key, value in stored:
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
