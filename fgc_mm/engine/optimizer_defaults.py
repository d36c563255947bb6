"""Writes the optimizer's default settings into a config."""

from __future__ import annotations

import inspect
from numbers import Real

from mmengine.config import Config
from mmpretrain.registry import OPTIMIZERS

from fgc_mm.registry import class_of

NAMES = 'lr', 'weight_decay'


def write_optimizer_defaults(cfg: Config) -> None:
    """Writes the defaults of ``lr`` and ``weight_decay`` into a config.

    ``paramwise_cfg`` and layer-wise decay multiply the numbers of the config
    and raise an error if one is missing, for example with ``decay_mult=0`` for
    the gates and an Adam without ``weight_decay``, whose default is 0.
    """
    optimizer = (cfg.get('optim_wrapper') or {}).get('optimizer')
    if not isinstance(optimizer, dict):
        return
    kind = class_of(optimizer, OPTIMIZERS)
    if not callable(kind):  # unknown: the Runner raises the error
        return
    found = inspect.signature(kind).parameters
    for name in NAMES:
        if name in found and isinstance(found[name].default, Real):
            optimizer.setdefault(name, found[name].default)
