"""The cache of compiled libraries, and their checksums."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_folders() -> list[Path]:
    """Possible cache folders, in order of preference.

    ``FGC_MM_CACHE`` if set; otherwise ~/.cache/fgc_mm, and if there is no
    such home, a folder of this user in the system's temporary folder.
    """
    named = os.environ.get('FGC_MM_CACHE')
    if named:
        return [Path(named).expanduser()]
    folders = []
    with contextlib.suppress(RuntimeError):  # no HOME and no passwd entry
        folders.append(Path.home() / '.cache' / 'fgc_mm')
    return [*folders, _temporary()]


def refuse_foreign_folder(folder: Path) -> None:
    """Refuse a temporary folder of another user, whose code must not run.

    Raises:
        PermissionError: The folder belongs to another user.
    """
    if folder != _temporary():
        return
    folder.mkdir(mode=0o700, exist_ok=True)
    if not hasattr(os, 'getuid'):  # Windows has one per user
        return
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise PermissionError(0, 'it belongs to another user')


def _temporary() -> Path:
    import tempfile  # slow to import, and rarely needed

    user = os.getuid() if hasattr(os, 'getuid') else 'user'
    return Path(tempfile.gettempdir()) / f'fgc_mm-{user}'


def is_intact(library: Path) -> bool:
    """Whether the file is unchanged since it was compiled."""
    try:
        return checksum_file(library).read_text() == checksum(library)
    except FileNotFoundError:
        return False


def store_library(part: Path, library: Path) -> None:
    """Rename a complete library to its name, and store its checksum."""
    note = part.with_suffix('.sum')
    note.write_text(checksum(part))
    part.replace(library)
    note.replace(checksum_file(library))


def invalidate(library: Path) -> None:
    """Make a library be compiled again when it is next needed."""
    checksum_file(library).unlink(missing_ok=True)


def checksum(library: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(library.read_bytes()).hexdigest()


def checksum_file(library: Path) -> Path:
    """File of a library's checksum."""
    return library.with_suffix('.sha256')


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Lock a file between processes; released if the process dies."""
    try:
        import fcntl
    except ImportError:  # Windows: two may compile; the last rename counts
        yield
        return
    with path.open('w') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
