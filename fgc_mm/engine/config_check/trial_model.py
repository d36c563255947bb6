"""A copy of the model on which a step can be tried."""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from fgc_mm.engine.loss_progress_hook import (
    LossProgressHook,
    bare_model,
    progress_at,
    set_progress,
)
from fgc_mm.functional.schedule import Progress
from fgc_mm.losses import FeatureGateCouplingLoss


def trial_copy(runner: Runner) -> BaseModel | None:
    """The bare model, with statistics and counters of its own.

    Parameters, which a forward pass only reads, and memory banks, which are
    written by their hook alone, are shared.

    Returns:
        ``None`` where the model cannot be copied (its parameters are spread
        over the ranks, or a module holds part of a graph).
    """
    plain = nn.parallel.DistributedDataParallel
    if runner.model is not bare_model(runner) and not isinstance(
        runner.model, plain
    ):
        return None
    model = bare_model(runner)
    shared: list[Any] = [*model.parameters()]
    shared += [loss.banks for loss in _coupling(model)]
    try:
        return copy.deepcopy(model, {id(thing): thing for thing in shared})
    except (RuntimeError, TypeError):
        return None


@torch.no_grad()
def try_losses(model: BaseModel, batch: Any, runner: Runner) -> None:
    """All losses of a batch, as in the next step and as in the last one.

    At the end of a schedule those losses act that begin later.

    Raises:
        FGCError: What the model and its losses refuse.
    """
    model.train()
    for progress in _next_and_last(runner):
        if progress is not None:
            set_progress(model, progress)
        data = model.data_preprocessor(batch, True)
        with _autocast(runner, model):
            losses = model(**data, mode='loss')
        model.parse_losses(losses)
        for loss in _coupling(model):
            loss.drop_batch()


def _autocast(runner: Runner, model: nn.Module) -> AbstractContextManager:
    """The context in which the run's own steps compute their losses."""
    wrapper = runner.optim_wrapper
    if isinstance(wrapper, OptimWrapper):
        return wrapper.optim_context(model)
    return nullcontext()


@torch.no_grad()
def try_prediction(model: BaseModel, batch: Any, settled: bool) -> list:
    """Predictions of a batch.

    Args:
        model: The copy.
        batch: As a data loader gives it.
        settled: Whether running statistics describe the images; otherwise
            norms use the batch's own, as far as it has more than one image.
    """
    model.eval()
    if not settled and len(batch['inputs']) > 1:
        for part in model.modules():
            if isinstance(part, _NormBase):
                part.train()
    return model.val_step(batch)


def _coupling(model: nn.Module) -> list[FeatureGateCouplingLoss]:
    parts = model.modules()
    return [x for x in parts if isinstance(x, FeatureGateCouplingLoss)]


def _next_and_last(runner: Runner) -> list[Progress | None]:
    if not any(isinstance(hook, LossProgressHook) for hook in runner.hooks):
        return [None]
    steps = runner.iter, max(runner.max_iters - 1, runner.iter)
    return [progress_at(runner, step) for step in steps]
