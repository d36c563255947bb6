"""Messages for errors of upstream that a config or a data set causes."""

import re
from traceback import walk_tb
from typing import NamedTuple
from urllib.error import URLError

import cv2


class Known(NamedTuple):
    """An error that a config or a data set causes, and its message.

    Attributes:
        kinds: Class of the error, or several.
        pattern: Regular expression that its text contains.
        sentence: The message, with ``{0}`` for the text and ``{1}`` for the
            first group of the pattern.
        code: Regular expression for the code that is running when the error
            is raised: a line ``file:function`` per frame, the outermost first.
    """

    kinds: type[BaseException] | tuple[type[BaseException], ...]
    pattern: str
    sentence: str
    code: str = ''


def upstream_sentence(error: BaseException) -> str | None:
    """The message for a known error; None for other errors."""
    if isinstance(error, URLError):
        return _download_sentence(error)
    # the text of a KeyError is quoted
    quoted = isinstance(error, KeyError) and error.args
    text = str(error.args[0] if quoted else error)
    frames = [frame.f_code for frame, _ in walk_tb(error.__traceback__)]
    code = '\n'.join(f'{f.co_filename}:{f.co_name}' for f in frames)
    for known in KNOWN:
        if isinstance(error, known.kinds) and re.search(known.code, code):
            found = re.search(known.pattern, text)
            if found:
                sentence = known.sentence.format(text, *found.groups())
                return ' '.join(sentence.split())
    return None


def _download_sentence(error: URLError) -> str | None:
    """The message for a missing data set, with the folder for its file."""
    for frame, _ in walk_tb(error.__traceback__):  # the outermost first
        dataset = frame.f_locals.get('self')
        folder = (getattr(dataset, 'data_prefix', None) or {}).get('root')
        address = getattr(dataset, 'url', getattr(dataset, 'url_prefix', ''))
        if folder and address:
            files = getattr(dataset, 'filename', 'its files')
            return (
                f'{type(dataset).__name__} is not in {folder}, and {address} '
                f'cannot be reached ({error.reason}): put {files} into that '
                'folder, or begin with fgc_resnet20_digits.py, which needs '
                'no download.'
            )
    return None


KNOWN = (
    Known(KeyError, r'(.* registry)\. ',
          '{1}: check its spelling and custom_imports.'),
    Known(TypeError, 'unexpected keyword',
          '{0}; check its spelling in the config.'),
    Known(TypeError, r'__init__\(\) missing ',
          '{0}; set what is missing in the config.',
          r'/mmengine/registry/\w+\.py:build_from_cfg\b'),
    Known(ValueError, 'different number of parameter groups',
          'the optimizer state of the checkpoint has other parameter groups '
          'than the config; resume with the paramwise_cfg and the constructor '
          'of optim_wrapper of the original run (only '
          'fgc_mm.JoinedGroupsConstructor can resume a run with a group per '
          'parameter), or load only the weights, with --cfg-options '
          'load_from=...'),
    Known(ValueError, 'loaded state dict',
          'the checkpoint was written by another network ({0}), so its '
          'optimizer cannot be resumed; load only the weights, with '
          '--cfg-options load_from=...'),
    Known(ValueError, 'base_wd should not be',
          'optim_wrapper.optimizer has no weight_decay, which decay_mult in '
          'paramwise_cfg multiplies; set it, to 0.0 for none.'),
    Known(KeyError, 'contain the key "type", but got (.*)',
          'a part of the config has no type ({1}), but a part that is built '
          'must name its class; check the spelling of its key.'),
    Known(AssertionError, r'self\.(begin_\w+) should be .*(max_\w+): (\d+), '
          r'but got begin_\w+: (\d+)',
          'EMAHook has {1}={4} and the run has {2}={3}, but the average must '
          'begin before the run ends; set a lower {1}, or train longer.'),
    Known(RuntimeError, r'port: (\d+).*EADDRINUSE',
          'port {1} of this machine is in use, but the processes need a free '
          'port to connect; set another MASTER_PORT.'),
    Known(ValueError, 'more than 1 value per',
          '{0}: a norm needs the variance of a batch; use a batch_size of at '
          'least 2 that leaves no last batch of 1 image.'),
    Known(ValueError, 'SyncBatchNorm layers only work with GPU',
          'the model has SyncBatchNorm layers, with which several processes '
          "train on GPUs only; set norm_cfg=dict(type='BN'), with which each "
          'process uses the statistics of its own batch, train with one '
          'process, or on GPUs.'),
    Known(ValueError, 'one array to conc',
          'a data set of the config has no image; check its data_root, '
          'data_prefix and indices.'),
    Known(TypeError, 'indices must be',
          '{0}; correct the indices of the data set, as in indices=100.',
          r'/mmengine/dataset/\w+\.py'),
    Known(ValueError, 'batch_size should be a positive',
          '{0}; set a batch_size of at least 1 in the data loader.'),
    Known(ValueError, 'Cannot infer the rule',
          '{0} The key is that of save_best or monitor: set rule="greater" or '
          'rule="less" next to it, or another metric.'),
    Known(ValueError, 'meta information of the first',
          'the data sets in a ConcatDataset differ ({0}): they must number '
          'their classes in the same way; give each of them the same list as '
          'classes=...'),
    Known(ValueError, 'must be a positive integer',
          '{0}: set the number of classes of the head, as in 10.'),
    Known(RuntimeError, 'shapes cannot be multiplied',
          'the head gets features of another width ({0}): in_channels of the '
          'head is the number of channels that the neck gives it; set '
          'in_channels, or the neck.',
          r'/mmpretrain/models/heads/\w+\.py'),
    Known(TypeError, 'None is not a callable',
          'the type in optim_wrapper.optimizer is not a registered optimizer; '
          'check its spelling and custom_imports.',
          r'/mmengine/optim/optimizer/\w+\.py'),
    Known((ValueError, TypeError), '',
          'the optimizer refuses a setting ({0}); check the values in '
          'optim_wrapper.optimizer.',
          r'/torch/optim/\w+\.py:__init__\b'),
    Known(cv2.error, '(?s)(.{,120})$',
          'OpenCV cannot do a step of a pipeline (... {1}); check the sizes '
          'in the pipelines of the data sets.',
          r'/mm(cv|pretrain/datasets)/transforms/\w+\.py'),
    Known(Exception, r'number of subfolders \((\d+)\).*classes \((\d+)\)',
          'a data set has {1} class folders and {2} classes: it treats every '
          'folder, also a hidden one, as a class; remove folders that are '
          'not classes (.ipynb_checkpoints), correct classes=, or use '
          "type='fgc_mm.ImageFolder'."),
    Known(Exception, r'stack expects each tensor to be equal size, but got '
          r'(.{,80})',
          'the images of a batch differ in size ({1}), but the pipeline must '
          "give one size; add dict(type='Resize', scale=...) or a crop to it.",
          r'/torch/utils/data/|/data_preprocessor\.py'),
    # raised in this file, not by what it calls
    Known(ValueError, '',
          'a line of an annotation file cannot be read ({0}): each line must '
          "be an image's path, a space and the number of its class, and none "
          "may be blank; correct it, or use type='fgc_mm.ImageFolder'.",
          r'/mmpretrain/datasets/custom\.py:\S+$'),
    Known(RuntimeError, '^Found 0 files',
          '{0}: check data_root and data_prefix of the data set.'),
)  # fmt: skip
