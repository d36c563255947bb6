"""Scales the schedule of a config to another number of epochs."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import floor
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner

from fgc_mm.errors import FGCError
from fgc_mm.losses.coupling_switches import PRESETS
from fgc_mm.type_name import type_name

MOVING = {'start_value', 'end_value'}
# mmengine's default for the end of a scheduler
FOREVER = 10**9
LENGTHS = {'step_size', 'total_steps'}
# settings of hooks that are the number of an epoch, counted from 1
EPOCHS = 'begin_epoch', 'action_epoch'
# settings of a config that a run reads
_READ = inspect.signature(Runner).parameters.keys()
# schedulers that begin at a fraction of the rate and reach it at their end
WARM_UPS = re.compile('(Linear|Constant)(LR|Momentum|ParamScheduler)$')


def scale_epochs(cfg: Config, epochs: int) -> Config:
    """A copy of the config that trains for another number of epochs.

    Scaled in proportion are the milestones, ``begin``, ``end``, ``T_max``, ...
    of every parameter scheduler that counts epochs; ``begin`` and ``end`` of
    every scheduled number (a dict with ``start_value`` and ``end_value``
    anywhere in the config, unless ``by_epoch=False``); ``warmup_epochs``, as
    of ``FeatureGateCouplingLoss``; the epoch from which hooks act
    (``begin_epoch``, as of ``EMAHook``, and ``action_epoch`` of
    ``SwitchRecipeHook``); the intervals of validation, saving and
    ``PreciseBNHook``; and the epochs whose checkpoints are kept
    (``keep_epochs``).
    Events at the same epoch stay at the same epoch, their order does not
    change, and an interval is at least one epoch long if there are enough
    epochs (a warm-up of one epoch then counts steps). The last epoch is
    validated and saved.

    Args:
        cfg: The config; it is not changed.
        epochs: Number of epochs to train for.

    Raises:
        FGCError: The number is not positive, or the config does not count
            epochs.
    """
    old = (cfg.get('train_cfg') or {}).get('max_epochs')
    if not old:
        raise FGCError(
            f'{cfg.filename} has no train_cfg.max_epochs to scale: only a '
            'schedule that counts epochs can be scaled; give a config with '
            'train_cfg = dict(by_epoch=True, max_epochs=...).'
        )
    if epochs < 1:
        raise FGCError(
            f'the number of epochs is {epochs}; give a whole number of at '
            'least 1.'
        )
    # to_dict() of a Config makes new dicts: nothing is shared with cfg
    fields = cfg.to_dict()
    schedulers = fields.get('param_scheduler') or []
    checkpoint = (fields.get('default_hooks') or {}).get('checkpoint') or {}
    # not those in other variables, from which the config is put together
    read = [fields[name] for name in fields.keys() & _READ if fields[name]]
    points = {
        *_points(schedulers, _scheduler_points),
        *_points(read, _weight_points),
        *(checkpoint.get('keep_epochs') or []),
    }
    epoch_map = EpochMap.of(points, old, epochs)
    fields = {name: _weights(fields[name], epoch_map) for name in fields}
    before = fields['train_cfg']
    fields['train_cfg'] = _train_cfg(before, epoch_map)
    if fields.get('param_scheduler'):
        share = _validations(fields['train_cfg']) / _validations(before)
        fields['param_scheduler'] = _each(
            fields['param_scheduler'],
            lambda node: _waiting(_scheduler(node, epoch_map), share),
        )
    hooks = fields.get('default_hooks') or {}
    _save_the_last(hooks.get('checkpoint') or {}, epoch_map)
    return Config(fields, filename=cfg.filename)


@dataclass(frozen=True)
class EpochMap:
    """Maps epochs of the old schedule to epochs of the new one.

    Attributes:
        old: Epochs of the old schedule.
        new: Epochs of the new one.
        events: The new epoch of every old one at which something happens.
    """

    old: int
    new: int
    events: dict[int, int]

    @classmethod
    def of(cls, points: set[int], old: int, new: int) -> EpochMap:
        """Round every point; keep points distinct if there are enough epochs.

        Epoch 0 stays 0, the end becomes ``new``, and the last epoch (one
        before the end) stays the last one; points between 0 and the end
        stay between them.
        """
        inner = sorted(p for p in points if 0 < p < old)
        last = max(new - 1, 1)
        epochs = [min(max(_round(p * new / old), 1), last) for p in inner]
        if old - 1 in points and old > 1:
            epochs[-1] = last
        if len(inner) < new:
            for i in range(1, len(epochs)):
                epochs[i] = max(epochs[i], epochs[i - 1] + 1)
            for i, epoch in reversed([*enumerate(epochs)]):
                epochs[i] = min(epoch, new - len(epochs) + i)
        return cls(old, new, {**dict(zip(inner, epochs)), 0: 0, old: new})

    def at(self, epoch: int) -> int:
        """The new epoch for an epoch of the old schedule."""
        if epoch >= FOREVER:
            return epoch
        known = self.events.get(epoch)
        return _round(epoch * self.new / self.old) if known is None else known

    def length(self, epochs: int) -> int:
        """A scaled number of epochs; at least 1, except for 0."""
        return epochs and max(_round(epochs * self.new / self.old), 1)

    def span(self, begin: int, end: int) -> tuple[int, int]:
        """New begin and end; at least one epoch long if it was."""
        first, last = self.at(begin), self.at(end)
        if end > begin and last == first:
            last = min(first + 1, self.new)
            first = max(last - 1, 0)
        return first, last


def _round(value: float) -> int:
    return floor(value + 0.5)


def _points(node: Any, of: Any) -> Iterator[int]:
    """The results of a function for every dict in a nested config."""
    if isinstance(node, dict):
        yield from of(node)
    for child in node.values() if isinstance(node, dict) else node:
        if isinstance(child, (dict, list, tuple)):
            yield from _points(child, of)


def _counts_epochs(node: dict) -> bool:
    return bool(node.get('by_epoch', True))


def _scheduler_points(node: dict) -> Iterator[int]:
    if 'type' not in node or not _counts_epochs(node):
        return
    begin = node.get('begin', 0)
    yield from (begin, *node.get('milestones', ()))
    if 'end' in node:
        yield node['end']
    if 'T_max' in node:
        yield begin + node['T_max']


def _weight_points(node: dict) -> Iterator[int]:
    if node.keys() >= MOVING and _counts_epochs(node):
        yield node.get('begin', 0)
        yield node.get('end', 0)
    for name in _later_epochs(node):
        yield node[name] - 1


def _later_epochs(node: dict) -> list[str]:
    """Settings that are an epoch from which a hook acts, not the first."""
    return [n for n in EPOCHS if type(node.get(n)) is int and node[n] > 1]


def _each(node: Any, scale: Any) -> Any:
    """Apply a function to every dict with a type in a nested config."""
    if isinstance(node, dict):
        if 'type' in node:
            return scale(node)
        return {name: _each(child, scale) for name, child in node.items()}
    return [_each(child, scale) for child in node]


def _scheduler(node: dict, epoch_map: EpochMap) -> dict:
    if not _counts_epochs(node):
        return node
    scaled = dict(node, **_scheduler_span(node, epoch_map))
    for name in LENGTHS & node.keys():
        scaled[name] = epoch_map.length(node[name])
    if 'milestones' in node:
        scaled['milestones'] = [epoch_map.at(m) for m in node['milestones']]
    if 'periods' in node:
        scaled['periods'] = [epoch_map.length(n) for n in node['periods']]
    if type_name(node).endswith('ExponentialLR'):  # a factor per epoch
        scaled['gamma'] = node['gamma'] ** (epoch_map.old / epoch_map.new)
    return _fitted(scaled, node, epoch_map)


def _validations(train_cfg: dict) -> float:
    """About how often a run validates."""
    return train_cfg['max_epochs'] / max(train_cfg.get('val_interval', 1), 1)


def _waiting(node: dict, share: float) -> dict:
    """A scheduler that counts validations, with its counts scaled."""
    if not type_name(node).startswith('ReduceOnPlateau'):
        return node
    counts = {'patience': 10, 'cooldown': 0}  # mmengine's defaults
    counts |= {name: node[name] for name in counts.keys() & node.keys()}
    return node | {
        name: count and max(_round(count * share), 1)
        for name, count in counts.items()
    }


def _fitted(scaled: dict, before: dict, epoch_map: EpochMap) -> dict:
    """Adjust a scaled scheduler that mmengine would refuse or never step.

    - A scheduler never begins after the last epoch: if there is only one
      epoch for a warm-up and its successor, both begin with it.
    - A warm-up of one epoch counts steps. Counted in epochs, it would keep
      its first value and the rate would never rise.
    """
    old, new = epoch_map.old, epoch_map.new
    fitted = dict(scaled)
    if fitted.get('begin', 0) >= new and before.get('begin', 0) < old:
        fitted['begin'] = new - 1
    is_warm_up = WARM_UPS.search(type_name(fitted))
    if is_warm_up and _length(fitted, new) == 1 < _length(before, old):
        fitted['convert_to_iter_based'] = True
    return fitted


def _length(node: dict, epochs: int) -> int:
    return min(node.get('end', epochs), epochs) - node.get('begin', 0)


def _scheduler_span(node: dict, epoch_map: EpochMap) -> dict[str, int]:
    """New ``begin``, ``end`` and ``T_max``, those that the scheduler has."""
    begin = node.get('begin', 0)
    first, last = epoch_map.span(begin, node.get('end', FOREVER))
    found = dict(begin=first, end=last)
    if 'T_max' in node:
        first, last = epoch_map.span(begin, begin + node['T_max'])
        found['T_max'] = last - first
    return {name: value for name, value in found.items() if name in node}


def _weights(node: Any, epoch_map: EpochMap) -> Any:
    """The node with all scheduled numbers in it scaled."""
    if isinstance(node, (list, tuple)):
        return type(node)(_weights(child, epoch_map) for child in node)
    if not isinstance(node, dict):
        return node
    scaled = {name: _weights(child, epoch_map) for name, child in node.items()}
    if node.keys() >= MOVING and _counts_epochs(node):
        span = epoch_map.span(node.get('begin', 0), node.get('end', 0))
        scaled.update(zip(('begin', 'end'), span))
    for name in _later_epochs(node):
        scaled[name] = epoch_map.at(node[name] - 1) + 1
    if type_name(node) == 'SwitchRecipeHook':
        scaled['schedule'] = _merged(scaled.get('schedule') or ())
    for name, epochs in _lengths(node):
        scaled[name] = epoch_map.length(epochs)
    return scaled


def _lengths(node: dict) -> Iterator[tuple[str, int]]:
    """Numbers of epochs that a hook or loss has, also by default."""
    kind, warmup = type_name(node), node.get('warmup_epochs')
    if warmup is None and kind.endswith('FeatureGateCouplingLoss'):
        preset = PRESETS.get(node.get('preset', 'reference'))
        warmup = preset.warmup_epochs if preset else 0
    if type(warmup) is int:
        yield 'warmup_epochs', warmup
    if kind == 'PreciseBNHook' and 'interval' in node:
        yield 'interval', node['interval']


def _merged(schedule: Sequence[dict]) -> list[dict]:
    """The recipes of a schedule, with one for every epoch."""
    recipes: dict[Any, dict] = {}
    for recipe in schedule:
        epoch = recipe.get('action_epoch')
        recipes[epoch] = {**recipes.get(epoch, {}), **recipe}
    return [*recipes.values()]


def _train_cfg(node: dict, epoch_map: EpochMap) -> dict:
    scaled = dict(node, max_epochs=epoch_map.new)
    if 'val_interval' in node:
        scaled['val_interval'] = epoch_map.length(node['val_interval'])
    if 'val_begin' in node:
        scaled['val_begin'] = min(
            epoch_map.length(node['val_begin']), epoch_map.new
        )
    if node.get('dynamic_intervals'):
        scaled['dynamic_intervals'] = [
            (epoch_map.at(epoch), epoch_map.length(interval))
            for epoch, interval in node['dynamic_intervals']
        ]
    return scaled


def _save_the_last(hook: dict, epoch_map: EpochMap) -> None:
    """Scale the intervals of the checkpoint hook, in place."""
    if hook and hook.get('by_epoch', True):
        if hook.get('interval', -1) > 0:
            hook['interval'] = epoch_map.length(hook['interval'])
        if 'save_begin' in hook:
            hook['save_begin'] = epoch_map.at(hook['save_begin'])
        if hook.get('keep_epochs'):
            hook['keep_epochs'] = [
                epoch_map.at(e) for e in hook['keep_epochs']
            ]
        hook['save_last'] = True
