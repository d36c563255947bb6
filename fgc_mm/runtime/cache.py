"""Where compiled libraries are kept, and whether they are whole."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_folders() -> list[Path]:
    """Where libraries are kept: the first that can be used.

    ``FGC_MM_CACHE``; without it ~/.cache/fgc_mm, and where there is no such
    home a folder of this user among the system's temporary files.
    """
    named = os.environ.get('FGC_MM_CACHE')
    if named:
        return [Path(named)]
    folders = []
    with contextlib.suppress(RuntimeError):  # no HOME, and no passwd entry
        folders.append(Path.home() / '.cache' / 'fgc_mm')
    return [*folders, _temporary()]


def refuse_strangers(folder: Path) -> None:
    """Where every user may write, a library of another one is not run.

    Raises:
        PermissionError: The folder belongs to somebody else.
    """
    if folder != _temporary():
        return
    folder.mkdir(mode=0o700, exist_ok=True)
    if not hasattr(os, 'getuid'):  # Windows: each user has a folder for them
        return
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise PermissionError(0, 'it belongs to another user')


def _temporary() -> Path:
    import tempfile  # slow to import, and mostly not needed

    user = os.getuid() if hasattr(os, 'getuid') else 'user'
    return Path(tempfile.gettempdir()) / f'fgc_mm-{user}'


def intact(library: Path) -> bool:
    """Whether the file is what the compiler gave."""
    try:
        return checksum_file(library).read_text() == checksum(library)
    except FileNotFoundError:
        return False


def keep(part: Path, library: Path) -> None:
    """Rename a whole library to its name, and note its checksum."""
    note = part.with_suffix('.sum')
    note.write_text(checksum(part))
    part.replace(library)
    note.replace(checksum_file(library))


def discard(library: Path) -> None:
    """Let a library be compiled anew when it is next asked for."""
    checksum_file(library).unlink(missing_ok=True)


def checksum(library: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(library.read_bytes()).hexdigest()


def checksum_file(library: Path) -> Path:
    """Where the checksum of a library is noted."""
    return library.with_suffix('.sha256')


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process at a time; the system drops the lock of one that dies."""
    try:
        import fcntl
    except ImportError:  # Windows: two may compile, and one rename wins
        yield
        return
    with path.open('w') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
