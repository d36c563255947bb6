"""Which errors the workers of a data loader report."""

import multiprocessing
import sys
from types import TracebackType

_report = sys.excepthook


def report_error(
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
