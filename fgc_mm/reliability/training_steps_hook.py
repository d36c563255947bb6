"""Raises an error in a run without training steps."""

from __future__ import annotations

from typing import Any

from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, Runner
from torch.utils.data import DataLoader

from fgc_mm.errors import FGCError
from fgc_mm.registry import HOOKS


@HOOKS.register_module()
class TrainingStepsHook(Hook):
    """Raises an error in a run that has no training step.

    Otherwise the run would validate and save a network that was never
    trained. A run that was resumed at its last step logs a warning.
    """

    priority = 'HIGHEST'

    def __init__(self) -> None:
        self._first = 0

    def before_train(self, runner: Runner) -> None:
        """Check the lengths of data loader and loop.

        Raises:
            FGCError: There is no training step.
        """
        check_steps(runner)
        self._first = runner.iter

    def after_train(self, runner: Runner) -> None:
        """Log a warning if the run has made no step."""
        if runner.iter == self._first:
            runner.logger.warning(
                f'The run was resumed at its end (iteration {runner.iter}), '
                'so nothing was trained; to continue training, increase '
                'max_epochs or max_iters.'
            )


def check_steps(runner: Runner) -> None:
    """Raises FGCError if the training loop has no step."""
    loop = runner._train_loop
    if not isinstance(loop, BaseLoop):  # not built yet
        return
    _check_batches(loop.dataloader)
    if getattr(loop, 'max_iters', 1) == 0:
        raise FGCError(
            'max_epochs (or max_iters) of train_cfg is 0, which leaves no '
            'training step; set it to at least 1, or test a checkpoint with '
            'fgc-mm test.'
        )


def _check_batches(loader: DataLoader) -> None:
    dataset: Any = loader.dataset
    try:
        steps, images = len(loader), len(dataset)
    except TypeError:  # a data set without a length
        return
    if steps == 0:
        batches = loader.batch_sampler
        size = getattr(batches, 'batch_size', loader.batch_size)
        per_rank = -(-images // get_world_size())
        raise FGCError(
            f'batch_size={size} with drop_last=True leaves no training step '
            f'of {images} images on {get_world_size()} processes; set a '
            f'batch_size of at most {per_rank} in train_dataloader, or '
            'drop_last=False.'
        )
