"""Convolutions on maps whose channels lie side by side in memory."""

from __future__ import annotations

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from fgc_mm.engine.loss_progress_hook import bare_model
from fgc_mm.registry import HOOKS


@HOOKS.register_module()
class ChannelsLastHook(Hook):
    """Puts the model's 4-d weights into ``torch.channels_last``.

    A convolution whose weights are channels-last computes and hands on
    channels-last maps. Names, shapes and values stay, so checkpoints do
    too; rounding differs.
    """

    def before_run(self, runner: Runner) -> None:
        """Convert the weights in place."""
        bare_model(runner).to(memory_format=torch.channels_last)
