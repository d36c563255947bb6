"""Runs one batch through a copy of the model."""

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
    progress_at,
    set_progress,
    unwrapped_model,
)
from fgc_mm.functional.schedule import Progress
from fgc_mm.losses import FeatureGateCouplingLoss


def trial_copy(runner: Runner) -> BaseModel | None:
    """A copy of the unwrapped model, with its own statistics and counters.

    It shares parameters, which a forward pass only reads, and memory banks,
    which only their hook writes.

    Returns:
        ``None`` if the model cannot be copied: its parameters are sharded
        over the ranks, or a module holds part of an autograd graph.
    """
    model = unwrapped_model(runner)
    plain = nn.parallel.DistributedDataParallel
    if runner.model is not model and not isinstance(runner.model, plain):
        return None
    shared: list[Any] = [*model.parameters()]
    shared += [loss.banks for loss in _coupling(model)]
    try:
        return copy.deepcopy(model, {id(thing): thing for thing in shared})
    except (RuntimeError, TypeError):
        return None


@torch.no_grad()
def try_losses(model: BaseModel, batch: Any, runner: Runner) -> None:
    """Compute all losses of a batch, as in the next and in the last step.

    The last step includes losses that are zero at first.

    Raises:
        FGCError: The model or a loss raises it.
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
    """The context in which the run's training steps compute the losses."""
    wrapper = runner.optim_wrapper
    if isinstance(wrapper, OptimWrapper):
        return wrapper.optim_context(model)
    return nullcontext()


@torch.no_grad()
def try_prediction(model: BaseModel, batch: Any, trained: bool) -> list:
    """Predictions of a copy of the model for a batch.

    Args:
        trained: Whether the running statistics of norms are those of a
            trained model; otherwise norms use the statistics of the batch,
            if it has more than one image.
    """
    model.eval()
    if not trained and len(batch['inputs']) > 1:
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
