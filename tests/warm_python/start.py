"""An interpreter that starts in milliseconds, for one test process."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CLIENT = Path(__file__).with_name('client.py')
LONGEST = 107  # characters of a socket's path


@contextmanager
def warm_python(shared: Path | None = None) -> Iterator[str]:
    """Path of a program that behaves as ``sys.executable`` does, sooner.

    Inside it ``sys.executable`` is that program, so that tests and the tools
    that they run start their Python processes with it. Its server starts
    with the first of them. FGC_TEST_COLD=1 in the environment turns it off.

    Args:
        shared: Folder in which processes with the same parent share one
            server, which ends with that parent.
    """
    if shared is not None and len(str(shared / 's.lock')) <= LONGEST:
        shared.mkdir(exist_ok=True)
        with _in_place_of_python(shared, os.getppid()) as path:
            yield path
        return
    with (
        tempfile.TemporaryDirectory(prefix='warm') as folder,
        _in_place_of_python(Path(folder), os.getpid()) as path,
    ):
        yield path


@contextmanager
def _in_place_of_python(folder: Path, owner: int) -> Iterator[str]:
    real, wrapper = sys.executable, folder / 'python'
    fixed = ' '.join(
        f'"{x}"' for x in (CLIENT, real, wrapper, folder / 's', owner)
    )
    new = folder / f'python{os.getpid()}'
    new.write_text(f'#!/bin/sh\nexec "{real}" -IS {fixed} "$@"\n')
    new.chmod(0o755)
    new.rename(wrapper)
    sys.executable = str(wrapper)
    try:
        yield str(wrapper)
    finally:
        sys.executable = real
