"""Finds ``--cfg-options`` that nothing reads."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from mmengine.runner import Runner

# keys of the config that mmengine, mmpretrain or fgc_mm read in addition to
# the arguments of Runner
_OTHERS = {
    'compile',
    'custom_imports',
    'find_unused_parameters',
    'model_wrapper_cfg',
    'runner_type',
    'strategy',
    'sync_bn',
    'tta_model',
    'tta_pipeline',
}
# keys below these are read with a default, so a misspelt one raises no error
_BELOW = {
    'auto_scale_lr': {'base_batch_size', 'enable'},
    'env_cfg': {'cudnn_benchmark', 'dist_cfg', 'mp_cfg', 'resource_limit'},
}


def unread_options(
    cfg: Mapping[str, Any], options: Mapping[str, Any]
) -> Iterator[str]:
    """A warning for each option that has no effect.

    Args:
        cfg: The config before the options are merged into it.
        options: Dotted keys and their values.
    """
    known = {*inspect.signature(Runner).parameters, *_OTHERS} - {'cfg'}
    for option in options:
        first, *rest = option.split('.')
        if first in known:
            below = _BELOW.get(first)
            if below and rest and rest[0] not in below:
                yield _unknown(option, rest[0], below)
        elif first in cfg:
            yield (
                f'--cfg-options {option}: {first} is a variable of the '
                'config, and settings that were computed from it do not '
                'change; set the key that the Runner reads, as in '
                'train_dataloader.batch_size=64.'
            )
        else:
            yield _unknown(option, first, known | set(cfg))


def _unknown(option: str, key: str, known: Collection[str]) -> str:
    nearest = get_close_matches(key, sorted(known), n=1, cutoff=0.6)
    remedy = 'check its spelling.'
    if nearest:
        remedy = f'did you mean {nearest[0]}?'
    return (
        f'--cfg-options {option}: nothing reads a key {key!r}, so it has no '
        f'effect; {remedy}'
    )
