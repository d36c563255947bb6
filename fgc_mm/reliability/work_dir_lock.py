"""One run per work dir."""

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
    """Held as long as the process lives, however it ends.

    A POSIX lock: unlike flock's it is not inherited by the data loader's
    workers, which may outlive a killed run for some seconds.
    """

    def __init__(self) -> None:
        self._number: int | None = None

    def take(self, work_dir: str | Path) -> None:
        """Takes the folder.

        Raises:
            FGCError: Another process holds it.
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
        """Gives the folder back."""
        if self._number is not None:
            os.close(self._number)
            self._number = None
