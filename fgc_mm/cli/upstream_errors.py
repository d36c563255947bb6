"""Messages for errors of torch and mmengine that a config causes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import PurePath

import cv2


def upstream_sentence(error: BaseException) -> str | None:
    """The message for a known error, with what the user can do.

    Args:
        error: The exception that ended the run.

    Returns:
        One sentence, or None.
    """
    for kind, phrase, describe in KNOWN:
        if isinstance(error, kind) and phrase in str(error):
            return describe(error)
    for kinds, phrase, folder, describe in KNOWN_IN:
        known = isinstance(error, kinds) and phrase in str(error)
        if known and _raised_below(error, *folder):
            return describe(error)
    return None


def _raised_below(error: BaseException, *folder: str) -> bool:
    """Whether code of this folder was running when it was raised."""
    trace = error.__traceback__
    while trace is not None:
        parts = PurePath(trace.tb_frame.f_code.co_filename).parts
        if parts[-len(folder) - 1 : -1] == folder:
            return True
        trace = trace.tb_next
    return False


def _head_width(error: BaseException) -> str:
    return (
        f'the head gets features of another width ({error}): in_channels of '
        'the head is the number of channels that the neck gives it; set '
        'in_channels, or the neck.'
    )


def _optimizer_setting(error: BaseException) -> str:
    return (
        f'the optimizer refuses a setting ({error}); check the values in '
        'optim_wrapper.optimizer.'
    )


def _unknown_optimizer(_: BaseException) -> str:
    return (
        'the type in optim_wrapper.optimizer is no registered optimizer; '
        'check its spelling and custom_imports.'
    )


def _no_batch_size(error: BaseException) -> str:
    return f'{error}; set a batch_size of at least 1 in the data loader.'


def _opencv(error: BaseException) -> str:
    last = ' '.join(str(error).split())[-120:]
    return (
        f'OpenCV cannot do a step of a pipeline (... {last}); check the '
        'sizes in the pipelines of the data sets.'
    )


def _unknown_type(error: BaseException) -> str:
    unknown = str(error.args[0]).partition('. ')[0]
    return f'{unknown}: check its spelling and custom_imports.'


def _unknown_argument(error: BaseException) -> str:
    return f'{error}; check its spelling in the config.'


def _other_network(error: BaseException) -> str:
    return (
        f'the checkpoint was written by another network ({error}), so '
        'its optimizer cannot be resumed; load only the weights, with '
        '--cfg-options load_from=...'
    )


def _other_groups(_: BaseException) -> str:
    return (
        'the optimizer state of the checkpoint has other parameter groups '
        'than the config; resume with the paramwise_cfg and the constructor '
        'of optim_wrapper of the original run (only '
        'fgc_mm.JoinedGroupsConstructor can resume a run with a group per '
        'parameter), or load only the weights, with --cfg-options '
        'load_from=...'
    )


def _no_weight_decay(_: BaseException) -> str:
    return (
        'optim_wrapper.optimizer has no weight_decay, which decay_mult '
        'in paramwise_cfg multiplies; set it, to 0.0 for none.'
    )


def _no_type(error: BaseException) -> str:
    part = str(error.args[0]).partition('but got ')[2].splitlines()[0]
    return (
        f'a part of the config has no type ({part}), but a part that is '
        'built must name its class; check the spelling of its key.'
    )


def _port_in_use(_: BaseException) -> str:
    return (
        f'port {os.environ.get("MASTER_PORT", "")} of this machine is in '
        'use, but the processes need a free port to connect; set another '
        'MASTER_PORT.'
    )


def _batch_of_one(error: BaseException) -> str:
    return (
        f'{error}: a norm needs the variance of a batch; use a batch_size '
        'of at least 2 that leaves no last batch of 1 image.'
    )


def _no_image(_: BaseException) -> str:
    return (
        'a data set of the config has no image; check its data_root, '
        'data_prefix and indices.'
    )


def _no_rule(error: BaseException) -> str:
    return (
        f'{error} The key is that of save_best or monitor: set '
        'rule="greater" or rule="less" next to it, or another metric.'
    )


def _other_classes(error: BaseException) -> str:
    return (
        f'the data sets in a ConcatDataset differ ({error}): they must '
        'number their classes in the same way; give each of them the same '
        'list as classes=...'
    )


def _no_class(error: BaseException) -> str:
    return f'{error}: set the number of classes of the head, as in 10.'


# class of the error, a part of its text, the sentence
KNOWN: tuple[
    tuple[type[BaseException], str, Callable[[BaseException], str]], ...
] = (
    (KeyError, ' registry. ', _unknown_type),
    (TypeError, 'unexpected keyword', _unknown_argument),
    (ValueError, 'different number of parameter groups', _other_groups),
    (ValueError, 'loaded state dict', _other_network),
    (ValueError, 'base_wd should not be', _no_weight_decay),
    (KeyError, 'contain the key "type"', _no_type),
    (RuntimeError, 'EADDRINUSE', _port_in_use),
    (ValueError, 'more than 1 value per', _batch_of_one),
    (ValueError, 'one array to conc', _no_image),
    (ValueError, 'batch_size should be a positive', _no_batch_size),
    (ValueError, 'Cannot infer the rule', _no_rule),
    (ValueError, 'meta information of the first', _other_classes),
    (ValueError, 'must be a positive integer', _no_class),
)

# the same, for errors that are known only if raised below a folder
KNOWN_IN: tuple[
    tuple[
        type[BaseException] | tuple[type[BaseException], ...],
        str,
        tuple[str, ...],
        Callable[[BaseException], str],
    ],
    ...,
] = (
    (
        RuntimeError,
        'shapes cannot be multiplied',
        ('mmpretrain', 'models', 'heads'),
        _head_width,
    ),
    (
        TypeError,
        'None is not a callable',
        ('mmengine', 'optim', 'optimizer'),
        _unknown_optimizer,
    ),
    ((ValueError, TypeError), '', ('torch', 'optim'), _optimizer_setting),
    (cv2.error, '', ('mmcv', 'transforms'), _opencv),
    (cv2.error, '', ('mmpretrain', 'datasets', 'transforms'), _opencv),
)
