"""Locks the folders of a run, so that no other run writes to them."""

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
    """Locks that the system releases when the process ends.

    They are POSIX locks, which, unlike those of flock, the data loader's
    workers do not inherit: they may run for some seconds after the main
    process was killed.
    """

    def __init__(self) -> None:
        self._numbers: dict[Path, int] = {}  # by folder

    def acquire(self, folder: str | Path) -> None:
        """Locks a folder, which is made if it does not exist.

        Raises:
            FGCError: Another process has locked it.
        """
        own = Path(folder).resolve()
        if fcntl is None or own in self._numbers:
            return
        own.mkdir(parents=True, exist_ok=True)
        path = own / NAME
        number = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.lockf(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            owner = os.read(number, 200).decode(errors='replace').strip()
            os.close(number)
            raise FGCError(
                f'{folder} is in use by {owner or "another process"}: two '
                'runs in one folder would overwrite each other; wait for '
                'it, or choose a --work-dir with another last name (a folder '
                'in out_dir has that name).'
            ) from None
        except OSError:  # a file system without locks
            os.close(number)
            return
        self._numbers[own] = number
        os.ftruncate(number, 0)
        text = f'process {os.getpid()} on {socket.gethostname()}\n'
        os.write(number, text.encode())

    def release(self) -> None:
        """Unlocks all folders."""
        while self._numbers:
            os.close(self._numbers.popitem()[1])
