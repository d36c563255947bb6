"""Parameter schedulers that a scaled schedule leaves a single epoch."""

from __future__ import annotations

import re

# begin at a share of the rate and reach all of it in their last step
_WARM_UPS = re.compile('(Linear|Constant)(LR|Momentum|ParamScheduler)$')


def fit_scheduler(scaled: dict, before: dict, old: int, new: int) -> dict:
    """A scaled scheduler, changed where mmengine would refuse or stall it.

    - None begins after the last epoch: one that followed a warm-up begins
      with it where there is one epoch for both.
    - A warm-up of one epoch counts steps. By epochs it would have its first
      value only, and the rate would never rise.

    Args:
        scaled: The scheduler in the new number of epochs.
        before: The same one in the old number.
        old: Epochs of the old schedule.
        new: Epochs of the new one.
    """
    fitted = dict(scaled)
    if fitted.get('begin', 0) >= new and before.get('begin', 0) < old:
        fitted['begin'] = new - 1
    is_warm_up = _WARM_UPS.search(_name(fitted['type']))
    if is_warm_up and _length(fitted, new) == 1 < _length(before, old):
        fitted['convert_to_iter_based'] = True
    return fitted


def _length(node: dict, epochs: int) -> int:
    return min(node.get('end', epochs), epochs) - node.get('begin', 0)


def _name(kind: str | type) -> str:
    return kind if isinstance(kind, str) else kind.__name__
