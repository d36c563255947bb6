"""Runs the main function of a command; prints errors in one line."""

from fgc_mm import checked_stack  # noqa: F401  isort: skip

import multiprocessing
import os
import re
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from types import TracebackType

import torch

from fgc_mm.cli.dispatch import path_sentence
from fgc_mm.cli.launch import leave_processes
from fgc_mm.cli.upstream_errors import upstream_sentence
from fgc_mm.error_line import print_error_line
from fgc_mm.errors import FGCError
from fgc_mm.exit_status import BAD_INPUT, INTERRUPTED
from fgc_mm.missing_package import missing_module
from fgc_mm.reliability.missing_ranks import (
    describe_missing,
    find_missing_ranks,
)
from fgc_mm.reliability.ranks import reports_errors, started_rank

_report = sys.excepthook


def run_tool(main: Callable[[], None]) -> int:
    """Runs a command's main function and returns its exit code.

    For bad input (FGCError, an unknown type in the config, a file that is
    missing or unreadable) and for Ctrl-C, one process prints one line. Any
    other exception is a bug and is raised with its traceback;
    FGC_TRACEBACK=1 does so for every exception.
    """
    sys.excepthook = _report_error
    if started_rank() > 0:
        warnings.simplefilter('ignore')  # rank 0 shows them
    try:
        return _run(main)
    except KeyboardInterrupt:
        # the terminal has sent the signal; torchrun would forward it again
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        return _print_once('interrupted', INTERRUPTED)


def _run(main: Callable[[], None]) -> int:
    try:
        main()
    except SystemExit as error:  # --help, or stopped by a signal
        if isinstance(error.code, int):
            leave_processes(error.code)
        raise
    except Exception as error:
        if os.environ.get('FGC_TRACEBACK'):
            raise
        sentence = _sentence(error)
        if sentence:
            return _print_once(f'error: {sentence}', BAD_INPUT)
        lost = find_missing_ranks(error)
        if lost is not None:
            return _print_once(f'error: {describe_missing(lost)}', BAD_INPUT)
        if torch.distributed.is_initialized() and not reports_errors():
            return BAD_INPUT
        raise
    leave_processes(0)
    return 0


def _report_error(
    kind: type[BaseException],
    error: BaseException,
    trace: TracebackType | None,
) -> None:
    """A ``sys.excepthook`` for a command and the workers forked from it.

    A thread of each worker passes the open files of its tensors on. If the
    command ends meanwhile, as by Ctrl-C, multiprocessing reports the lost
    connection with a traceback, which says nothing new.
    """
    worker = multiprocessing.parent_process() is not None
    if not (worker and isinstance(error, (EOFError, ConnectionError))):
        _report(kind, error, trace)


def _print_once(line: str, code: int) -> int:
    if reports_errors():
        print_error_line(line)
    return code


def _sentence(error: BaseException) -> str | None:
    """The message in one line if the user can fix it, else None."""
    if isinstance(error, ImportError):
        causes = [*_causes(error)]
        own = [cause for cause in causes if isinstance(cause, FGCError)]
        if not own:
            return _missing_import(causes)
        error = own[0]
    known = upstream_sentence(error)
    if known:
        return known
    if not isinstance(error, (FGCError, OSError)):
        return None
    if isinstance(error, OSError) and error.filename is not None:
        return path_sentence(error)
    text = str(error).strip()
    if 'DataLoader worker process' in text:
        # the worker's traceback, which ends with 'package.Class: message'
        text = re.split(r'^\S+Error: ', text, flags=re.MULTILINE)[-1]
    return ' '.join(text.split()) or type(error).__name__


def _missing_import(causes: list[BaseException]) -> str | None:
    """The error message for a missing package.

    mmengine wraps import errors of ``custom_imports`` and of its visualizers,
    and in some cases names the package to install.

    Returns:
        The message, or None if no package is missing: a missing module of
        fgc_mm, or a missing name in a package, is a bug.
    """
    missing = [e for e in causes if isinstance(e, ModuleNotFoundError)]
    module = missing_module(missing[-1]) if missing else None
    if module is None:
        return None
    texts = '\n'.join(map(str, causes))
    command = re.search(r'"(pip install [^"]+)"', texts)
    remedy = f'run `{command[1]}`' if command else 'install a package with pip'
    return (
        f'{module} cannot be imported, but the config needs it: '
        f"{remedy}; a module of your own must be in the config's folder or "
        'in a folder of PYTHONPATH.'
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, what it was raised from, and so on."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
