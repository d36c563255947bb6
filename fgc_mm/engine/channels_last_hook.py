"""Trains in the channels-last memory format."""

from __future__ import annotations

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from fgc_mm.engine.loss_progress_hook import unwrapped_model
from fgc_mm.registry import HOOKS


@HOOKS.register_module()
class ChannelsLastHook(Hook):
    """Converts the model's 4-d weights to ``torch.channels_last``.

    A convolution whose weights are channels-last computes and returns
    channels-last maps. Names, shapes and values of the weights stay the same,
    so checkpoints are compatible; results differ by rounding.
    """

    def before_run(self, runner: Runner) -> None:
        """Convert the weights in place."""
        unwrapped_model(runner).to(memory_format=torch.channels_last)
