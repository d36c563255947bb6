"""What a forked child does to look like a new interpreter."""

from __future__ import annotations

import atexit
import io
import os
import random
import resource
import runpy
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch


def run(request: dict[str, Any], streams: Sequence[int]) -> NoReturn:
    """Run the requested script and leave with its exit code."""
    for target, stream in enumerate(streams):
        os.dup2(stream, target)
        os.close(stream)
    prepare(request)
    code = execute(request['script'])
    leave(code)


def prepare(request: dict[str, Any]) -> None:
    """Folder, environment, arguments, streams, limits and generators."""
    os.setpgid(0, 0)
    for name, limits in request['limits'].items():
        resource.setrlimit(int(name), tuple(limits))
    # all signals at their defaults, but for what the client ignores
    ignored = set(request['ignored'])
    for number in set(signal.valid_signals()) - {9, 19, 32, 33}:
        default = signal.SIG_IGN if number in ignored else signal.SIG_DFL
        signal.signal(number, default)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # as Python begins
        signal.signal(number, signal.SIG_IGN)
    if signal.SIGINT not in ignored:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(request['folder'])
    os.environ.clear()
    os.environ.update(request['environment'])
    sys.argv = [request['script'], *request['arguments']]
    folder = str(Path(request['script']).resolve().parent)
    paths = os.environ.get('PYTHONPATH', '').split(os.pathsep)
    # replaces the server's own folder
    sys.path[:1] = [folder, *filter(None, paths)]
    sys.executable = request['executable']
    if sys.dont_write_bytecode:  # each would compile the package again
        sys.pycache_prefix = request['bytecode']
        sys.dont_write_bytecode = False
    sys.stdin = io.TextIOWrapper(io.FileIO(0, closefd=False))
    sys.stdout = stream(1, request['unbuffered'])
    sys.stderr = stream(2, unbuffered=True)
    sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr
    for action in request['warnings']:
        warnings.simplefilter(action)
    random.seed()
    np.random.seed()
    threads = os.environ.get('OMP_NUM_THREADS', '')
    if threads.isdigit():
        torch.set_num_threads(int(threads))


def stream(number: int, unbuffered: bool) -> io.TextIOWrapper:
    """A text stream of a file descriptor."""
    raw = io.FileIO(number, 'w', closefd=False)
    if unbuffered:
        return io.TextIOWrapper(raw, encoding='utf-8', write_through=True)
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding='utf-8')


def execute(script: str) -> int:
    """Run the script as ``__main__``; its exit code."""
    try:
        runpy.run_path(script, run_name='__main__')
    except SystemExit as stop:
        if stop.code is None or isinstance(stop.code, int):
            return stop.code or 0
        print(stop.code, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        traceback.print_exc()
        return -signal.SIGINT
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def leave(code: int) -> NoReturn:
    """End as the interpreter does: threads, exit functions, buffers."""
    try:
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        pass
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code & 255)
