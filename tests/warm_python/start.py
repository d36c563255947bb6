"""An interpreter that starts in milliseconds, for one test process."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CLIENT = Path(__file__).with_name('client.py')


@contextmanager
def warm_python() -> Iterator[str]:
    """Path of a program that behaves as ``sys.executable`` does, sooner.

    Inside it ``sys.executable`` is that program, so that tests and the tools
    that they run start their Python processes with it. Its server starts
    with the first of them. FGC_TEST_COLD=1 in the environment turns it off.
    """
    real = sys.executable
    # a short path: that of a socket has at most 107 characters
    with tempfile.TemporaryDirectory(prefix='warm') as folder:
        socket, wrapper = Path(folder, 's'), Path(folder, 'python')
        fixed = ' '.join(
            f'"{x}"' for x in (CLIENT, real, wrapper, socket, os.getpid())
        )
        wrapper.write_text(f'#!/bin/sh\nexec "{real}" -IS {fixed} "$@"\n')
        wrapper.chmod(0o755)
        sys.executable = str(wrapper)
        try:
            yield str(wrapper)
        finally:
            sys.executable = real
