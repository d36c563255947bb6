"""Refuses an average over training of what is not a statistic."""

from typing import Any

from mmengine.hooks import EMAHook
from mmengine.runner import Runner

from fgc_mm.engine.loss_progress_hook import unwrapped_model
from fgc_mm.errors import FGCError
from fgc_mm.functional.schedule import Schedule
from fgc_mm.memory import EpochMean


def check_averaged_buffers(runner: Runner) -> None:
    """Refuse an EMAHook that averages the state of a method.

    Raises:
        FGCError: It has ``update_buffers=True``, and a gate or loss keeps
            sums of an epoch, a threshold or a scheduled value in buffers.
    """
    hooks = [hook for hook in runner.hooks if isinstance(hook, EMAHook)]
    if not any(hook.ema_cfg.get('update_buffers') for hook in hooks):
        return
    for part in unwrapped_model(runner).modules():
        state = sorted({*part._buffers} - part._non_persistent_buffers_set)
        if state and any(_is_state(value) for value in vars(part).values()):
            raise FGCError(
                'EMAHook(update_buffers=True) averages buffers of '
                f'{type(part).__name__} ({", ".join(state)}) that are not '
                'running statistics; leave update_buffers out, so that the '
                'averaged model has their present values.'
            )


def _is_state(value: Any) -> bool:
    scheduled = isinstance(value, Schedule) and value.varies
    return scheduled or isinstance(value, EpochMean)
