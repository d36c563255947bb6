"""Atomic writing: a file is either complete or not changed."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from contextlib import suppress
from errno import EISDIR
from pathlib import Path

import torch
from mmengine.fileio import LocalBackend, register_backend

BACKEND = 'fgc_mm.atomic'
LEFTOVERS = '.*.part'


def write_atomically(content: bytes, path: str | Path) -> None:
    """Writes a temporary file, syncs it to the disk and renames it.

    If this fails or is interrupted, the old file is unchanged.

    Raises:
        OSError: The file cannot be written; it has the name of the file.
    """
    file = Path(path).resolve()  # a link stays one
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f'.{file.name}.{os.getpid()}.part')
    try:
        with part.open('wb') as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        if file.exists():
            shutil.copymode(file, part)
        part.replace(file)
    except BaseException as error:
        with suppress(OSError):
            part.unlink()
        if isinstance(error, OSError) and error.filename in (None, str(part)):
            error.filename = str(path)
        raise
    _sync_folder(file.parent)


def check_writable(path: str | Path) -> None:
    """Checks, before long work, that a file can be written at its end.

    Nothing is left on the disk: folders are made when the file is written.

    Raises:
        OSError: Its folder, or the one in which that will be made, cannot be
            written.
    """
    if Path(path).is_dir():
        raise IsADirectoryError(EISDIR, os.strerror(EISDIR), str(path))
    folder = Path(path).absolute().parent
    while not folder.exists():
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise


def save_atomically(state: object, path: str | Path) -> None:
    """As ``torch.save``; see :func:`write_atomically`."""
    with io.BytesIO() as stream:
        torch.save(state, stream)
        write_atomically(stream.getvalue(), path)


def remove_leftovers(folder: str | Path) -> list[Path]:
    """Removes the temporary files of killed writers from a folder."""
    leftovers = sorted(Path(folder).glob(LEFTOVERS))
    for part in leftovers:
        part.unlink(missing_ok=True)
    return leftovers


def _sync_folder(folder: Path) -> None:
    """Syncs the rename to the disk, if the file system supports it."""
    with suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


class AtomicBackend(LocalBackend):
    """mmengine's backend for local files, with atomic writes."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """As in ``LocalBackend``."""
        write_atomically(obj, filepath)

    def put_text(
        self, obj: str, filepath: str | Path, encoding: str = 'utf-8'
    ) -> None:
        """As in ``LocalBackend``."""
        write_atomically(obj.encode(encoding), filepath)


register_backend(BACKEND, AtomicBackend, force=True)
