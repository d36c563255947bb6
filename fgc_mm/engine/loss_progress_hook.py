"""Hook that gives gates and gate losses the progress of the training."""

from math import ceil
from typing import Any

from mmengine.dataset import InfiniteSampler
from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.model import BaseModel, is_model_wrapper
from mmengine.runner import IterBasedTrainLoop, Runner
from torch import nn
from torch.utils.data import DataLoader

from fgc_mm.errors import FGCError
from fgc_mm.functional.schedule import Progress, Schedule
from fgc_mm.memory import EpochMean
from fgc_mm.registry import HOOKS
from fgc_mm.reliability.exact_resume_hook import ExactResumeHook
from fgc_mm.reliability.random_states import seed_rank


@HOOKS.register_module()
class LossProgressHook(Hook):
    """Sets the epoch and iteration that schedules and warm-ups depend on.

    Schedules depend on nothing else, so a resumed run continues them
    correctly. The hook sets the attribute ``progress`` of the model and of
    its gates; gate losses get that of the model in their ``GateBatch``.

    With several ranks and without ``ExactResumeHook`` it also seeds the
    random generators, so that each rank has gate noise of its own.

    Raises:
        FGCError: The training set has no length, so epochs are unknown, but
            a schedule or a mean over an epoch depends on them.
    """

    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        self._seeds_rank = False  # before the next step

    def before_train(self, runner: Runner) -> None:
        """Begin means over epochs; refuse them if there are no epochs."""
        self._seeds_rank = get_world_size() > 1 and not any(
            isinstance(hook, ExactResumeHook) for hook in runner.hooks
        )
        endless = _steps_per_epoch(runner.train_dataloader) is None
        for part in unwrapped_model(runner).modules():
            values = vars(part).values()
            if runner.iter == 0:  # not resumed
                for value in values:
                    if isinstance(value, EpochMean):
                        value.end_epoch()
            if endless and any(map(_needs_epochs, values)):
                raise FGCError(
                    f'{type(part).__name__} changes with the epochs, but the '
                    'training set has no length, so the run is one epoch; '
                    'set by_epoch=False and iterations in its schedule, or '
                    'use a training set with a length.'
                )

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        """Set the progress of the model and its gates."""
        if self._seeds_rank:
            seed_rank(runner.seed, runner.iter)
            self._seeds_rank = False
        set_progress(unwrapped_model(runner), progress_at(runner, runner.iter))


def unwrapped_model(runner: Runner) -> BaseModel:
    """The model without the wrapper of distributed training."""
    model = runner.model
    return model.module if is_model_wrapper(model) else model


def is_schedule_preview(runner: Runner) -> bool:
    """Whether the run has neither a network nor images.

    mmpretrain's ``vis_scheduler.py`` runs the hooks of a config with a
    stand-in for both, to plot its learning rates.
    """
    if hasattr(unwrapped_model(runner), 'backbone'):
        return False
    return not isinstance(runner.train_dataloader, DataLoader)


def set_progress(model: nn.Module, progress: Progress) -> None:
    """Set ``progress`` of every module that has this attribute."""
    part: Any
    for part in model.modules():
        if hasattr(part, 'progress'):
            part.progress = progress


def progress_at(runner: Runner, iteration: int) -> Progress:
    """Epoch and iteration of the current or the last iteration."""
    if isinstance(runner.train_loop, IterBasedTrainLoop):
        # this loop does not count epochs
        steps = _steps_per_epoch(runner.train_dataloader)
        epoch = 0 if steps is None else iteration // max(steps, 1)
        return Progress(epoch, iteration)
    if iteration == runner.iter:
        return Progress(runner.epoch, iteration)
    return Progress(max(runner.max_epochs - 1, runner.epoch), iteration)


def _steps_per_epoch(loader: DataLoader) -> int | None:
    """Steps of this rank; ``None`` for a data set without a length."""
    try:
        steps = len(loader)
    except TypeError:
        return None
    # the length of an InfiniteSampler is that of the data set, of which each
    # rank draws only 1 / world size
    if isinstance(getattr(loader, 'sampler', None), InfiniteSampler):
        return ceil(steps / get_world_size())
    return steps


def _needs_epochs(value: Any) -> bool:
    if isinstance(value, Schedule):
        return value.varies and value.by_epoch
    return isinstance(value, EpochMean)
