"""Checks of the types of a config's sections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.config import Config

from fgc_mm.errors import FGCError

MAPPINGS = (
    'model', 'data_preprocessor', 'train_dataloader', 'val_dataloader',
    'test_dataloader', 'train_cfg', 'val_cfg', 'test_cfg', 'optim_wrapper',
    'default_hooks', 'auto_scale_lr', 'randomness', 'env_cfg', 'visualizer',
    'log_processor', 'custom_imports',
)  # fmt: skip
LISTS = ('custom_hooks',)
EITHER = 'param_scheduler', 'val_evaluator', 'test_evaluator'
PATHS = ('teacher',)  # parts that may be a mapping, or the path of one


def check_sections(cfg: Config) -> None:
    """Check that sections are mappings or lists, and the rate a number.

    Raises:
        FGCError: One is not.
    """
    for names, kinds, wanted in (
        (MAPPINGS, Mapping, 'a mapping, dict(...)'),
        (LISTS, (list, tuple), 'a list, [dict(...)]'),
        (EITHER, (Mapping, list, tuple), 'a mapping or a list of mappings'),
    ):
        for name in names:
            value = cfg.get(name)
            if value is not None and not isinstance(value, kinds):
                raise FGCError(
                    f'{name}={value!r} in the config must be {wanted}; '
                    'correct it.'
                )
    optimizer = (cfg.get('optim_wrapper') or {}).get('optimizer')
    rate = optimizer.get('lr') if isinstance(optimizer, Mapping) else None
    if isinstance(rate, (str, list, tuple, Mapping)):
        raise FGCError(
            f'optim_wrapper.optimizer.lr={rate!r} is not a number; write one, '
            'as in lr=0.1.'
        )


def refuse_replaced_parts(cfg: Config, options: Mapping[str, Any]) -> None:
    """Refuse options that replace a part with a ``type`` by a single value.

    Raises:
        FGCError: One does.
    """
    for key, value in options.items():
        part = _part(cfg, key)
        if not isinstance(part, Mapping) or 'type' not in part:
            continue
        path = isinstance(value, str) and key.rpartition('.')[2] in PATHS
        if isinstance(value, (bool, int, float, str)) and not path:
            raise FGCError(
                f'--cfg-options {key}={value} replaces the part '
                f'{part["type"]} of the config by a single value; set one of '
                f'its keys, as in {key}.KEY=VALUE.'
            )


def _part(cfg: Any, key: str) -> Any:
    """What a dotted key leads to, or ``None``."""
    part = cfg
    for name in key.split('.'):
        if isinstance(part, (Config, Mapping)):
            part = part.get(name)
        elif isinstance(part, Sequence) and name.isdecimal():
            part = part[int(name)] if int(name) < len(part) else None
        else:
            return None
    return part
