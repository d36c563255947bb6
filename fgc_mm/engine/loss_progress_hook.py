"""Telling gates and gate losses where the run is."""

from math import ceil

from mmengine.dataset import InfiniteSampler
from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import IterBasedTrainLoop, Runner
from torch import nn
from torch.utils.data import DataLoader

from fgc_mm.functional.schedule import Progress
from fgc_mm.registry import HOOKS


@HOOKS.register_module()
class LossProgressHook(Hook):
    """Tell gates and gate losses the epoch and the iteration of each step.

    Numbers that move and warm-ups follow from these alone, so that a resumed
    run stands where the first one stood.
    """

    priority = 'VERY_HIGH'

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        """Set ``progress`` of all that has one."""
        set_progress(bare_model(runner), progress_at(runner, runner.iter))


def bare_model(runner: Runner) -> nn.Module:
    """The model, without the wrapper of a distributed run."""
    model = runner.model
    return model.module if is_model_wrapper(model) else model


def is_schedule_preview(runner: Runner) -> bool:
    """Whether the run has neither a network nor images.

    mmpretrain's ``vis_scheduler.py`` runs the hooks of a config with a
    stand-in for both, to plot its learning rates.
    """
    if hasattr(bare_model(runner), 'backbone'):
        return False
    return not isinstance(runner.train_dataloader, DataLoader)


def set_progress(model: nn.Module, progress: Progress) -> None:
    """Set ``progress`` of every part of the model that has one."""
    for part in model.modules():
        if hasattr(part, 'progress'):
            part.progress = progress


def progress_at(runner: Runner, iteration: int) -> Progress:
    """Where the run is at one of its iterations, the present or the last."""
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
