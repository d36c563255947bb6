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

from fgc_mm.functional.schedule import Progress
from fgc_mm.registry import HOOKS


@HOOKS.register_module()
class LossProgressHook(Hook):
    """Sets the epoch and iteration that schedules and warm-ups depend on.

    They depend on nothing else, so a resumed run continues them correctly.
    Gates read them from their own attribute ``progress``; gate losses get
    them in their ``GateBatch``, from that of the classifier.
    """

    priority = 'VERY_HIGH'

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        """Set the progress of the model and its gates."""
        set_progress(bare_model(runner), progress_at(runner, runner.iter))


def bare_model(runner: Runner) -> BaseModel:
    """The model, without the wrapper of a distributed run."""
    model = runner.model
    return model.module if is_model_wrapper(model) else model


def set_progress(model: nn.Module, progress: Progress) -> None:
    """Set the attribute ``progress`` of every module that has one."""
    part: Any
    for part in model.modules():
        if hasattr(part, 'progress'):
            part.progress = progress


def progress_at(runner: Runner, iteration: int) -> Progress:
    """Progress at the current iteration of a run, or at its last one."""
    if isinstance(runner.train_loop, IterBasedTrainLoop):
        # this loop never moves its own epoch
        steps = max(_steps_per_epoch(runner.train_dataloader), 1)
        return Progress(iteration // steps, iteration)
    if iteration == runner.iter:
        return Progress(runner.epoch, iteration)
    return Progress(max(runner.max_epochs - 1, runner.epoch), iteration)


def _steps_per_epoch(loader: DataLoader) -> int:
    # an InfiniteSampler is as long as the data set, not as its rank's share
    if isinstance(loader.sampler, InfiniteSampler):
        return ceil(len(loader) / get_world_size())
    return len(loader)
