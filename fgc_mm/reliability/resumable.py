"""Checks that a checkpoint contains everything that resuming needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fgc_mm.errors import FGCError
from fgc_mm.reliability.checkpoint_reader import read_checkpoint

SCHEDULERS = 'param_schedulers'
AVERAGED = 'ema_state_dict'
# attributes of schedulers that change during a run
CHANGING = frozenset(
    (
        'best', 'cooldown_counter', 'last_step', 'num_bad_epochs',
        'verbose',
    )
)  # fmt: skip
SETTINGS = bool, int, float, str, list
# hyper-parameters of optimizers that keep a moving average per parameter
AVERAGES = 'momentum', 'betas', 'alpha', 'rho'


def _has_counters(meta: Any) -> bool:
    counters = meta if isinstance(meta, Mapping) else {}
    return all(isinstance(counters.get(k), int) for k in ('epoch', 'iter'))


def _has_logs(hub: Any) -> bool:
    parts = 'log_scalars', 'runtime_info', 'resumed_keys'
    return isinstance(hub, Mapping) and all(part in hub for part in parts)


def _has_groups(optimizer: Any) -> bool:
    states = _optimizers(optimizer)
    return bool(states) and all(
        isinstance(x, Mapping) and x.get('param_groups') for x in states
    )


def _has_states(schedulers: Any) -> bool:
    return isinstance(schedulers, (Mapping, Sequence))


def _optimizers(state: Any) -> list[Any]:
    """One state dict, or those of several optimizers by name."""
    if not isinstance(state, Mapping):
        return []
    return [state] if 'param_groups' in state else [*state.values()]


def _has_momentum(optimizer: Mapping[str, Any]) -> bool:
    """Whether every optimizer that keeps moving averages has them."""
    return all(
        state.get('state')
        or not any(
            group.get(name)
            for group in state['param_groups']
            for name in AVERAGES
        )
        for state in _optimizers(optimizer)
    )


# the entries of mmengine's checkpoint with the training state, and functions
# that check their values
NEEDED: dict[str, Callable[[Any], bool]] = {
    'meta': _has_counters,
    'message_hub': _has_logs,
    'optimizer': _has_groups,
    SCHEDULERS: _has_states,
}


def check_resumable(path: str | Path, scheduled: bool = False) -> None:
    """Raises FGCError unless training can be continued from this file.

    Published and converted weights, and the best checkpoint of a run (which
    mmengine saves without optimizer and schedulers), do not contain the
    training state: a run would resume with the initial learning rate.

    Args:
        path: The file.
        scheduled: Whether the run that resumes has parameter schedulers.
    """
    check_training_state(read_checkpoint(path), str(path), scheduled)


def check_training_state(
    checkpoint: Mapping[str, Any], name: str, scheduled: bool = False
) -> None:
    """Like :func:`check_resumable`, for the contents of the file ``name``."""
    missing = sorted(
        key
        for key, usable in NEEDED.items()
        if not usable(checkpoint.get(key)) and (scheduled or key != SCHEDULERS)
    )
    if missing:
        raise FGCError(
            f'{name} has no {" and no ".join(missing)}: a run resumes from '
            'a checkpoint with the complete training state, which the best '
            'checkpoint of a run and published weights do not have; give '
            'the file of the last epoch (--resume without a value finds '
            'it), or load only the weights with load_from instead of '
            '--resume.'
        )
    if checkpoint['meta']['iter'] and not _has_momentum(
        checkpoint['optimizer']
    ):
        raise FGCError(
            f'{name} has an optimizer without its state (momentum), which '
            'was removed: a resumed run needs it; give the file that the run '
            'saved, or take the weights alone with load_from instead of '
            '--resume.'
        )


def check_averages(
    checkpoint: Mapping[str, Any], name: str, averaged: bool
) -> None:
    """Raises FGCError if averaged weights would be resumed as trained ones.

    In a checkpoint of mmengine's ``EMAHook``, ``state_dict`` holds the
    averaged weights and ``ema_state_dict`` the trained ones. Only the hook
    exchanges them.

    Args:
        checkpoint: The contents of the file ``name``.
        name: Name of the file in the message.
        averaged: Whether the run that resumes has an ``EMAHook``.
    """
    if AVERAGED in checkpoint and not averaged:
        raise FGCError(
            f'{name} is of a run with EMAHook and has the averaged weights '
            'in place of the trained ones: a resumed run needs the hook, '
            'which exchanges them; set EMAHook in custom_hooks as in the '
            'original run, or start from the averaged weights with '
            'load_from instead of --resume.'
        )


def check_schedulers(
    checkpoint: Mapping[str, Any], schedulers: object
) -> None:
    """Raises FGCError if the checkpoint has another number of schedulers.

    mmengine would restore the first ones and start the others anew. Only
    lists are compared.
    """
    saved = checkpoint.get(SCHEDULERS)
    if (
        isinstance(saved, Sequence)
        and isinstance(schedulers, Sequence)
        and len(saved) != len(schedulers)
    ):
        raise FGCError(
            f'the checkpoint has {len(saved)} parameter schedulers and the '
            f'config {len(schedulers)}: a resumed run needs the same '
            'schedule; set param_scheduler as in the original run, or load '
            'only the weights with load_from instead of --resume.'
        )


def changed_schedules(
    checkpoint: Mapping[str, Any], schedulers: object
) -> list[str]:
    """Settings of schedulers that differ from those of the checkpoint.

    mmengine saves a scheduler with all its settings, which replace those of
    the config in a resumed run. Only lists are compared.

    Returns:
        Descriptions, such as ``CosineAnnealingLR has T_max=9 in the
        checkpoint and 19 in the config``.
    """
    saved = checkpoint.get(SCHEDULERS)
    if not isinstance(saved, Sequence) or not isinstance(schedulers, Sequence):
        return []
    return [
        f'{type(scheduler).__name__} has {name}={before[name]} in the '
        f'checkpoint and {value} in the config'
        for old, scheduler in zip(saved, schedulers)
        for before in [_settings(old)]
        for name, value in _settings(scheduler.state_dict()).items()
        if name in before and before[name] != value
    ]


def _settings(state: Any) -> dict[str, Any]:
    """The settings in a scheduler's state, as in the config."""
    if not isinstance(state, Mapping):
        return {}
    settings: dict[str, Any] = {}
    for name, value in state.items():
        if name == 'base_values' and isinstance(value, list):  # of groups
            name = f'initial_{state.get("param_name")}'
            value = sorted({*value})
        elif isinstance(value, Counter):  # milestones
            value = [*value.elements()]
        elif isinstance(value, tuple):
            value = [*value]
        own = name in CHANGING or name.startswith('_')
        if isinstance(value, SETTINGS) and not own:
            settings[name] = value
    return settings
