"""Messages for errors of torch and mmengine that a config causes."""

import os
from collections.abc import Callable
from pathlib import PurePath
from traceback import walk_tb
from typing import NamedTuple

import cv2


class Known(NamedTuple):
    """An error that a config causes, and its message.

    Attributes:
        kinds: Class of the error, or several.
        phrase: A part of its text.
        sentence: The message, with ``{}`` for the error.
        folders: Code of one of these must be running when the error is
            raised; ``()`` for any.
        shown: The part of the error that is put into the message.
        function: Name of the function of that code; '' for any.
    """

    kinds: type[BaseException] | tuple[type[BaseException], ...]
    phrase: str
    sentence: str
    folders: tuple[str, ...] = ()
    shown: Callable[[BaseException], str] = str
    function: str = ''


def upstream_sentence(error: BaseException) -> str | None:
    """The message for a known error; None for other errors."""
    for known in KNOWN:
        if isinstance(error, known.kinds) and known.phrase in str(error):
            if known.folders and not _was_running(error, known):
                continue
            return known.sentence.format(known.shown(error))
    return None


def _was_running(error: BaseException, known: Known) -> bool:
    """Whether the code of a known error was running when it was raised."""
    codes = [frame.f_code for frame, _ in walk_tb(error.__traceback__)]
    return any(
        PurePath(code.co_filename).parent.as_posix().endswith(known.folders)
        and known.function in ('', code.co_name)
        for code in codes
    )


def _first_sentence(error: BaseException) -> str:
    return str(error.args[0]).partition('. ')[0]


def _part_of_config(error: BaseException) -> str:
    return str(error.args[0]).partition('but got ')[2].splitlines()[0]


def _end(error: BaseException) -> str:
    return ' '.join(str(error).split())[-120:]


def _port(_: BaseException) -> str:
    return os.environ.get('MASTER_PORT', '')


KNOWN = (
    Known(KeyError, ' registry. ',
          '{}: check its spelling and custom_imports.',
          shown=_first_sentence),
    Known(TypeError, 'unexpected keyword',
          '{}; check its spelling in the config.'),
    Known(TypeError, '__init__() missing ',
          '{}; set what is missing in the config.',
          ('/mmengine/registry',),
          function='build_from_cfg'),
    Known(ValueError, 'different number of parameter groups',
          'the optimizer state of the checkpoint has other parameter groups '
          'than the config; resume with the paramwise_cfg and the constructor '
          'of optim_wrapper of the original run (only '
          'fgc_mm.JoinedGroupsConstructor can resume a run with a group per '
          'parameter), or load only the weights, with --cfg-options '
          'load_from=...'),
    Known(ValueError, 'loaded state dict',
          'the checkpoint was written by another network ({}), so its '
          'optimizer cannot be resumed; load only the weights, with '
          '--cfg-options load_from=...'),
    Known(ValueError, 'base_wd should not be',
          'optim_wrapper.optimizer has no weight_decay, which decay_mult in '
          'paramwise_cfg multiplies; set it, to 0.0 for none.'),
    Known(KeyError, 'contain the key "type"',
          'a part of the config has no type ({}), but a part that is built '
          'must name its class; check the spelling of its key.',
          shown=_part_of_config),
    Known(RuntimeError, 'EADDRINUSE',
          'port {} of this machine is in use, but the processes need a free '
          'port to connect; set another MASTER_PORT.',
          shown=_port),
    Known(ValueError, 'more than 1 value per',
          '{}: a norm needs the variance of a batch; use a batch_size of at '
          'least 2 that leaves no last batch of 1 image.'),
    Known(ValueError, 'one array to conc',
          'a data set of the config has no image; check its data_root, '
          'data_prefix and indices.'),
    Known(TypeError, 'indices must be',
          '{}; correct the indices of the data set, as in indices=100.',
          ('/mmengine/dataset',)),
    Known(ValueError, 'batch_size should be a positive',
          '{}; set a batch_size of at least 1 in the data loader.'),
    Known(ValueError, 'Cannot infer the rule',
          '{} The key is that of save_best or monitor: set rule="greater" or '
          'rule="less" next to it, or another metric.'),
    Known(ValueError, 'meta information of the first',
          'the data sets in a ConcatDataset differ ({}): they must number '
          'their classes in the same way; give each of them the same list as '
          'classes=...'),
    Known(ValueError, 'must be a positive integer',
          '{}: set the number of classes of the head, as in 10.'),
    Known(RuntimeError, 'shapes cannot be multiplied',
          'the head gets features of another width ({}): in_channels of the '
          'head is the number of channels that the neck gives it; set '
          'in_channels, or the neck.',
          ('/mmpretrain/models/heads',)),
    Known(TypeError, 'None is not a callable',
          'the type in optim_wrapper.optimizer is not a registered optimizer; '
          'check its spelling and custom_imports.',
          ('/mmengine/optim/optimizer',)),
    Known((ValueError, TypeError), '',
          'the optimizer refuses a setting ({}); check the values in '
          'optim_wrapper.optimizer.',
          ('/torch/optim',),
          function='__init__'),
    Known(cv2.error, '',
          'OpenCV cannot do a step of a pipeline (... {}); check the sizes in '
          'the pipelines of the data sets.',
          ('/mmcv/transforms', '/mmpretrain/datasets/transforms'),
          shown=_end),
)  # fmt: skip
