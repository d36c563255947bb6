"""Adjusts parameter schedulers that have one epoch after scaling."""

from __future__ import annotations

import re

# these begin at a fraction of the rate and reach it in their last step
_WARM_UPS = re.compile('(Linear|Constant)(LR|Momentum|ParamScheduler)$')


def fit_scheduler(scaled: dict, before: dict, old: int, new: int) -> dict:
    """Adjust a scaled scheduler that mmengine would refuse or never step.

    - A scheduler never begins after the last epoch: one that followed a
      warm-up begins with it if there is only one epoch for both.
    - A warm-up of one epoch counts steps. Counted in epochs it would only
      have its first value, and the rate would never rise.

    Args:
        scaled: The scheduler in the new number of epochs.
        before: The same scheduler in the old number of epochs.
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
