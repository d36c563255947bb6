"""``--cfg-options``: settings of the command line that override a config."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Collection, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from mmengine.config import Config, DictAction
from mmengine.runner import Runner

from fgc_mm.engine.config_sections import (
    check_sections,
    refuse_replaced_parts,
)
from fgc_mm.error_line import print_error_line
from fgc_mm.errors import FGCError
from fgc_mm.reliability.ranks import started_rank

# options that are one path, whatever characters it has
PATHS = {'load_from', 'checkpoint', 'data_root', 'ann_file'}
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


class ConfigOptions(DictAction):
    """``--cfg-options key=value ...``; a malformed pair is an FGCError."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Sequence[str],
        option_string: str | None = None,
    ) -> None:
        """Adds the pairs to those of earlier --cfg-options."""
        for pair in values:
            key, equals, _ = pair.partition('=')
            if not key or not equals:
                raise FGCError(
                    f'--cfg-options {pair!r} is not a pair: write key=value '
                    'without spaces, as in optim_wrapper.optimizer.lr=0.1.'
                )
        try:
            super().__call__(parser, namespace, values, option_string)
        except AssertionError as error:
            raise FGCError(
                f'--cfg-options cannot be read ({error}): brackets must '
                'match, as in key="[(a,b),(c,d)]".'
            ) from None
        for key, _, value in (pair.partition('=') for pair in values):
            # mmengine removes every space, and splits at every comma
            is_path = key.rpartition('.')[2] in PATHS and '/' in value
            text = ' ' in value and not set(value) & set(',[]()\'"')
            if text or (is_path and value[:1] not in ('"', "'", '[', '(')):
                getattr(namespace, self.dest)[key] = value


def read_options(pairs: Sequence[str]) -> dict[str, Any]:
    """The values of ``key=value`` pairs, as ``--cfg-options`` reads them.

    Raises:
        FGCError: One is not a pair, or its brackets do not match.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=ConfigOptions)
    arguments = ['--cfg-options', *pairs] if pairs else []
    return parser.parse_args(arguments).cfg_options or {}


def override(cfg: Config, options: dict | None) -> None:
    """Merges ``--cfg-options`` into the config.

    An option that nothing reads causes a warning.
    """
    options = options or {}
    if started_rank() == 0:
        for warning in unread_options(cfg, options):
            print_error_line(f'warning: {warning}')
    refuse_replaced_parts(cfg, options)
    try:
        cfg.merge_from_dict(options)
    except (KeyError, TypeError, AttributeError) as error:
        raise FGCError(
            f'--cfg-options does not fit the config ({error.args[0]}): a key '
            'follows the nesting of the config; check each part between the '
            'dots.'
        ) from error
    check_sections(cfg)


def unread_options(
    cfg: Mapping[str, Any], options: Mapping[str, Any]
) -> Iterator[str]:
    """A warning for each option that has no effect on a config."""
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
    nearest = get_close_matches(key, sorted(known), n=1)
    remedy = 'check its spelling.'
    if nearest:
        remedy = f'did you mean {nearest[0]}?'
    return (
        f'--cfg-options {option}: nothing reads a key {key!r}, so it has no '
        f'effect; {remedy}'
    )
