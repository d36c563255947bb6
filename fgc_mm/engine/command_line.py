"""What the tools share: arguments, the config, and errors in one line."""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict, DictAction

from ..errors import FGCError
from ..sites.image_size import expect_images
from .data_errors import data_sentence
from .image_size import config_image_size
from .import_errors import missing_import
from .launch import first_to_fail, leave_processes, started_rank
from .roll_call import lost_siblings, name_lost
from .unread_options import unread_options
from .upstream_errors import upstream_sentence

BAD_INPUT, INTERRUPTED = 2, 130


def run_tool(main: Callable[[], None]) -> int:
    """Runs a tool's main function and gives its exit code.

    Bad input (FGCError, an unknown type in the config, a file that is
    missing or unreadable) is told in one line, by one of the processes; so is
    Ctrl-C. Any other exception is a bug and keeps its traceback, and
    FGC_TRACEBACK=1 keeps them all.
    """
    if started_rank() > 0:
        warnings.simplefilter('ignore')  # rank 0 has them all
    try:
        return _run(main)
    except KeyboardInterrupt:
        # torchrun passes on to us what the terminal has sent us already
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        return _tell('interrupted', INTERRUPTED)


def _run(main: Callable[[], None]) -> int:
    try:
        main()
    except SystemExit as error:  # --help, or told to stop: not failed
        if isinstance(error.code, int):
            leave_processes(error.code)
        raise
    except Exception as error:
        if os.environ.get('FGC_TRACEBACK'):
            raise
        sentence = _sentence(error)
        if sentence:
            return _tell(f'error: {sentence}', BAD_INPUT)
        lost = lost_siblings(error)
        if lost is not None:
            return _tell(f'error: {name_lost(lost)}', BAD_INPUT)
        if torch.distributed.is_initialized() and not first_to_fail():
            return BAD_INPUT
        raise
    leave_processes(0)
    return 0


def _tell(line: str, code: int) -> int:
    if first_to_fail():
        print(line, file=sys.stderr, flush=True)
    return code


def _sentence(error: BaseException) -> str | None:
    """The error in one line if it is the user's to mend, else None."""
    if isinstance(error, ImportError):
        error = _cause(error)
    if isinstance(error, ImportError) and not isinstance(error, FGCError):
        return missing_import(error)
    known = upstream_sentence(error) or data_sentence(error)
    if known:
        return known
    if not isinstance(error, (FGCError, OSError)):
        return None
    if isinstance(error, OSError) and error.filename is not None:
        return f'{error.filename}: {error.strerror}; check the path.'
    text = str(error).strip()
    if 'DataLoader worker process' in text:
        # The worker's traceback, and at its end 'package.Class: message'.
        text = re.split(r'^\S+Error: ', text, flags=re.MULTILINE)[-1]
    return ' '.join(text.split()) or type(error).__name__


def _cause(error: ImportError) -> BaseException:
    """The FGCError that made an import fail, if one did, else the error.

    mmengine wraps what `custom_imports` raises, twice.
    """
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, FGCError):
        cause = cause.__cause__ or cause.__context__
    return cause or error


class ConfigOptions(DictAction):
    """``--cfg-options key=value ...``, with a sentence for a bad pair."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Sequence[str],
        option_string: str | None = None,
    ) -> None:
        """Adds the pairs to what earlier --cfg-options have given."""
        for pair in values:
            key, equals, _ = pair.partition('=')
            if not key or not equals:
                raise FGCError(
                    f'--cfg-options {pair!r} is no pair: each is key=value '
                    'without spaces, as in optim_wrapper.optimizer.lr=0.1.'
                )
        try:
            super().__call__(parser, namespace, values, option_string)
        except AssertionError as error:
            raise FGCError(
                f'--cfg-options cannot be read ({error}): brackets come in '
                'pairs, as in key="[(a,b),(c,d)]".'
            ) from None
        for key, _, value in (pair.partition('=') for pair in values):
            # mmengine takes every space away, those of a path among them.
            if ' ' in value and not set(value) & set(',[]()\'"'):
                getattr(namespace, self.dest)[key] = value


def read_options(pairs: Sequence[str]) -> dict[str, Any]:
    """The values of ``key=value`` pairs, as ``--cfg-options`` reads them.

    Raises:
        FGCError: One is no pair, or its brackets do not match.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=ConfigOptions)
    arguments = ['--cfg-options', *pairs] if pairs else []
    return parser.parse_args(arguments).cfg_options or {}


def add_shared_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that upstream's train.py and test.py both have."""
    parser.add_argument(
        '--no-pin-memory',
        action='store_true',
        help='do not load batches into pinned memory',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=ConfigOptions,
        metavar='KEY=VALUE',
        help='settings that override the config; a list is written '
        'key="[a,b]" or key=a,b, nested ones key="[(a,b),(c,d)]", without '
        'spaces',
    )
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='who started the processes (default: none, there is one)',
    )
    # torch.distributed.launch passes it in either spelling; torchrun does
    # not.
    parser.add_argument(
        '--local_rank',
        '--local-rank',
        type=int,
        default=0,
        help='(unused by torchrun) number of this process on its machine',
    )


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parses the command line, and exports --local-rank as mmengine does."""
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def load_config(path: str) -> Config:
    """Reads a config file; FGCError if it is missing or no config."""
    file = Path(path)
    if not file.is_file():
        raise FGCError(
            f'{path} is not a file: the first argument is a config; check '
            'the path (configs/ holds ours).'
        )
    # its custom_imports may name a package that lies beside it; last, so
    # that nothing beside it hides an installed one
    folder = str(file.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)
    try:
        cfg = Config.fromfile(path)
    except SyntaxError as error:
        raise FGCError(
            f'{path} cannot be read as a config ({error.msg}): a .py config '
            'is Python; mend the line.'
        ) from error
    except TypeError as error:  # a dict over what is none, or the like
        raise FGCError(
            f'{path} does not fit its _base_ files: {error}'
        ) from error
    expect_images(config_image_size(cfg))
    return cfg


def override(cfg: Config, options: dict | None) -> None:
    """Merges ``--cfg-options`` into the config.

    An option that nothing reads is named in a warning.
    """
    if started_rank() == 0:
        for sentence in unread_options(cfg, options or {}):
            print(f'warning: {sentence}', file=sys.stderr, flush=True)
    try:
        cfg.merge_from_dict(options or {})
    except (KeyError, TypeError) as error:
        raise FGCError(
            f'--cfg-options does not fit the config ({error.args[0]}): a key '
            'follows the nesting of the config; check each part between the '
            'dots.'
        ) from error


def choose_work_dir(cfg: Config, args: argparse.Namespace) -> None:
    """--work-dir, else the config's, else ./work_dirs/NAME_OF_CONFIG."""
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs', Path(args.config).stem))


def set_dataloader_defaults(
    cfg: Config, fields: Sequence[str], **defaults: object
) -> None:
    """Fills in what upstream's tools set for every data loader.

    Batches of tensors (``default_collate``; a bare Runner makes lists), and
    pinned memory, but only where a GPU can profit from it.
    """
    for field in fields:
        if cfg.get(field) is not None:
            loader = ConfigDict(
                pin_memory=_can_pin(cfg[field]),
                collate_fn=dict(type='default_collate'),
                **defaults,
            )
            loader.update(cfg[field])
            cfg[field] = loader


def _can_pin(loader: ConfigDict) -> bool:
    """Whether batches lie in the main memory, and a GPU profits."""
    # 'auto' and the like: what lies on a GPU already cannot be pinned
    dataset = loader.get('dataset') or {}
    return torch.cuda.is_available() and dataset.get('device', 'cpu') == 'cpu'


def switch_off(cfg: Config, fields: Sequence[str], name: str) -> None:
    """Sets one setting of the data loaders to False, whatever it was."""
    for field in fields:
        if cfg.get(field) is not None:
            cfg[field][name] = False
