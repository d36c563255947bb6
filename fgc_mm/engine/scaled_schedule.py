"""The same recipe in another number of epochs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import floor
from typing import Any

from mmengine.config import Config

from fgc_mm.engine.short_schedulers import fit_scheduler
from fgc_mm.errors import FGCError
from fgc_mm.losses.coupling_switches import PRESETS

MOVING = {'start_value', 'end_value'}
# mmengine's "never": the end of a scheduler that has none
FOREVER = 10**9
LENGTHS = {'step_size', 'total_steps'}


def scale_epochs(cfg: Config, epochs: int) -> Config:
    """A copy of the config that trains for another number of epochs.

    In proportion: the milestones, ``begin``, ``end``, ``T_max``, ... of
    every parameter scheduler that counts epochs; ``begin`` and ``end`` of
    every weight that moves (a dict with ``start_value`` and ``end_value``,
    wherever it stands, unless ``by_epoch=False``); the ``warmup_epochs`` of
    ``FeatureGateCouplingLoss``; how often is validated and saved, and the
    epochs whose checkpoints are kept (``keep_epochs``). What
    happened at one epoch still happens at one, what came after still does,
    and what lasted stays as long as the epochs have room for it (a warm-up
    of one epoch then counts steps); the last epoch is validated and saved.

    Args:
        cfg: The config; it is left as it is.
        epochs: How many epochs to train for.

    Raises:
        FGCError: No positive number, or the config counts no epochs.
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
            f'{epochs} epochs are no training; give a whole number of at '
            'least 1.'
        )
    points = set(_points(_schedulers(cfg), _scheduler_points))
    points |= set(_points(cfg.to_dict(), _weight_points))
    points |= set(_kept_epochs(cfg))
    clock = Clock.of(points, old, epochs)
    # to_dict() of a Config is plain and new: nothing is shared with cfg
    fields = {
        name: _weights(value, clock) for name, value in cfg.to_dict().items()
    }
    if fields.get('param_scheduler'):
        fields['param_scheduler'] = _each(
            fields['param_scheduler'], lambda node: _scheduler(node, clock)
        )
    fields['train_cfg'] = _train_cfg(fields['train_cfg'], clock)
    _save_the_last(fields.get('default_hooks') or {}, clock)
    return Config(fields, filename=cfg.filename)


@dataclass(frozen=True)
class Clock:
    """Which epoch of the new schedule an epoch of the old one becomes.

    Attributes:
        old: Epochs of the old schedule.
        new: Epochs of the new one.
        places: The epochs at which something happens, and where they go.
    """

    old: int
    new: int
    places: dict[int, int]

    @classmethod
    def of(cls, points: set[int], old: int, new: int) -> Clock:
        """Rounds every point, and keeps two points two where there is room.

        Epoch 0 stays 0, the end ``new``, and the last epoch, one before it,
        the last one; what lies between 0 and the end stays between them.
        """
        inner = sorted(p for p in points if 0 < p < old)
        last = max(new - 1, 1)
        places = [min(max(_round(p * new / old), 1), last) for p in inner]
        if old - 1 in points and old > 1:
            places[-1] = last
        if len(inner) < new:
            for i in range(1, len(places)):
                places[i] = max(places[i], places[i - 1] + 1)
            for i, place in reversed([*enumerate(places)]):
                places[i] = min(place, new - len(places) + i)
        return cls(old, new, {**dict(zip(inner, places)), 0: 0, old: new})

    def at(self, epoch: int) -> int:
        """The epoch that this one becomes."""
        if epoch >= FOREVER:
            return epoch
        known = self.places.get(epoch)
        return _round(epoch * self.new / self.old) if known is None else known

    def length(self, epochs: int) -> int:
        """So many epochs, scaled; at least 1 of what were any."""
        return epochs and max(_round(epochs * self.new / self.old), 1)

    def span(self, begin: int, end: int) -> tuple[int, int]:
        """Begin and end; what lasted still does, as far as there is room."""
        first, last = self.at(begin), self.at(end)
        if end > begin and last == first:
            last = min(first + 1, self.new)
            first = max(last - 1, 0)
        return first, last


def _round(value: float) -> int:
    return floor(value + 0.5)


def _points(node: Any, of: Any) -> Iterator[int]:
    """What a function finds in a nested config, dict by dict."""
    if isinstance(node, dict):
        yield from of(node)
    for child in node.values() if isinstance(node, dict) else node:
        if isinstance(child, (dict, list, tuple)):
            yield from _points(child, of)


def _schedulers(cfg: Config) -> Any:
    return cfg.to_dict().get('param_scheduler') or []


def _kept_epochs(cfg: Config) -> list[int]:
    hook = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    return hook.get('keep_epochs') or []


def _counts_epochs(node: dict) -> bool:
    return bool(node.get('by_epoch', True))


def _scheduler_points(node: dict) -> Iterator[int]:
    if 'type' not in node or not _counts_epochs(node):
        return
    begin = node.get('begin', 0)
    yield begin
    yield from node.get('milestones', ())
    if 'end' in node:
        yield node['end']
    if 'T_max' in node:
        yield begin + node['T_max']


def _weight_points(node: dict) -> Iterator[int]:
    if node.keys() >= MOVING and _counts_epochs(node):
        yield node.get('begin', 0)
        yield node.get('end', 0)


def _each(node: Any, scale: Any) -> Any:
    """A function applied to a dict with a type, or to all in a nest."""
    if isinstance(node, dict):
        if 'type' in node:
            return scale(node)
        return {name: _each(child, scale) for name, child in node.items()}
    return [_each(child, scale) for child in node]


def _scheduler(node: dict, clock: Clock) -> dict:
    if not _counts_epochs(node):
        return node
    scaled = dict(node, **_scheduler_span(node, clock))
    for name in LENGTHS & node.keys():
        scaled[name] = clock.length(node[name])
    if 'milestones' in node:
        scaled['milestones'] = [clock.at(m) for m in node['milestones']]
    if 'periods' in node:
        scaled['periods'] = [clock.length(n) for n in node['periods']]
    if str(node['type']).endswith('ExponentialLR'):  # a factor per epoch
        scaled['gamma'] = node['gamma'] ** (clock.old / clock.new)
    return fit_scheduler(scaled, node, clock.old, clock.new)


def _scheduler_span(node: dict, clock: Clock) -> dict[str, int]:
    """Where a scheduler begins and ends, as far as it says so."""
    begin = node.get('begin', 0)
    first, last = clock.span(begin, node.get('end', FOREVER))
    found = dict(begin=first, end=last)
    if 'T_max' in node:
        first, last = clock.span(begin, begin + node['T_max'])
        found['T_max'] = last - first
    return {name: value for name, value in found.items() if name in node}


def _weights(node: Any, clock: Clock) -> Any:
    """The node, with all that moves in it scaled."""
    if isinstance(node, (list, tuple)):
        return type(node)(_weights(child, clock) for child in node)
    if not isinstance(node, dict):
        return node
    scaled = {name: _weights(child, clock) for name, child in node.items()}
    if node.keys() >= MOVING and _counts_epochs(node):
        span = clock.span(node.get('begin', 0), node.get('end', 0))
        scaled.update(zip(('begin', 'end'), span))
    kind = node.get('type', '')
    kind = kind if isinstance(kind, str) else kind.__name__
    if kind.endswith('FeatureGateCouplingLoss'):
        warmup = node.get('warmup_epochs')
        if warmup is None:
            preset = PRESETS.get(node.get('preset', 'reference'), {})
            warmup = preset.get('warmup_epochs', 0)
        scaled['warmup_epochs'] = clock.length(warmup)
    return scaled


def _train_cfg(node: dict, clock: Clock) -> dict:
    scaled = dict(node, max_epochs=clock.new)
    if 'val_interval' in node:
        scaled['val_interval'] = clock.length(node['val_interval'])
    if 'val_begin' in node:
        scaled['val_begin'] = min(clock.length(node['val_begin']), clock.new)
    if node.get('dynamic_intervals'):
        scaled['dynamic_intervals'] = [
            (clock.at(epoch), clock.length(interval))
            for epoch, interval in node['dynamic_intervals']
        ]
    return scaled


def _save_the_last(hooks: dict, clock: Clock) -> None:
    """Scales how often the checkpoint hook saves (the dict is ours)."""
    hook = hooks.get('checkpoint')
    if hook and hook.get('by_epoch', True):
        if hook.get('interval', -1) > 0:
            hook['interval'] = clock.length(hook['interval'])
        if 'save_begin' in hook:
            hook['save_begin'] = clock.at(hook['save_begin'])
        if hook.get('keep_epochs'):
            hook['keep_epochs'] = [clock.at(e) for e in hook['keep_epochs']]
        hook['save_last'] = True
