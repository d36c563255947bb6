"""Locks a work dir, so that only one run writes to it."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from fgc_mm.errors import FGCError

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

NAME = '.running'


class WorkDirLock:
    """A lock that the system releases when the process ends.

    It is a POSIX lock, which, unlike that of flock, the data loader's workers
    do not inherit: they may run for some seconds after the main process was
    killed.
    """

    def __init__(self) -> None:
        self._number: int | None = None

    def acquire(self, work_dir: str | Path) -> None:
        """Locks the folder.

        Raises:
            FGCError: Another process has locked it.
        """
        if fcntl is None or self._number is not None:
            return
        path = Path(work_dir, NAME)
        number = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.lockf(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            owner = os.read(number, 200).decode(errors='replace').strip()
            os.close(number)
            raise FGCError(
                f'{work_dir} is in use by {owner or "another process"}: two '
                'runs in one work dir would overwrite each other; wait for '
                'it, or choose another --work-dir.'
            ) from None
        except OSError:  # a file system without locks
            os.close(number)
            return
        self._number = number
        os.ftruncate(number, 0)
        text = f'process {os.getpid()} on {socket.gethostname()}\n'
        os.write(number, text.encode())

    def release(self) -> None:
        """Unlocks the folder."""
        if self._number is not None:
            os.close(self._number)
            self._number = None
