"""Writes the arrays of a pass to disk by the batch; it can be resumed."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap

from fgc_mm.reliability.atomic_file import write_atomically

HEADER, PROGRESS = 'pass.json', 'progress.json'
SAVE_SECONDS = 5.0  # between two saves of the progress


class PassWriter:
    """Writes a pass into a temporary folder and renames it when complete.

    Every array is a ``.npy`` file of its final size, mapped into memory, so
    that only the pages of the current batch are in memory. The number of
    written images is saved every few seconds; a writer for the same folder
    continues there.

    Args:
        folder: Folder of the complete pass.
        total: Number of images of the pass.

    Attributes:
        done: Number of images that are written.
    """

    def __init__(self, folder: Path, total: int) -> None:
        self.folder = folder
        self.temporary = folder.with_name(f'.{folder.name}.part')
        self.total = total
        self.done = 0
        self._arrays: dict[str, np.memmap] = {}
        self._saved = monotonic()
        self._open_unfinished()

    def write(self, batch: Mapping[str, np.ndarray]) -> None:
        """Append one batch; every array (N, ...) with the same N."""
        if not self._arrays:
            self._create(batch)
        count = len(next(iter(batch.values())))
        for name, values in batch.items():
            self._arrays[name][self.done : self.done + count] = values
        self.done += count
        if monotonic() - self._saved > SAVE_SECONDS:
            self.save_progress()

    def save_progress(self) -> None:
        """Flush the arrays, and save the number of written images."""
        for array in self._arrays.values():
            array.flush()
        if self._arrays:
            _write_json(dict(done=self.done), self.temporary / PROGRESS)
        self._saved = monotonic()

    def finish(self, header: Mapping[str, Any]) -> None:
        """Write the header and rename the folder."""
        self.save_progress()
        self._arrays = {}
        _write_json(header, self.temporary / HEADER)
        (self.temporary / PROGRESS).unlink()
        if self.folder.exists():
            shutil.rmtree(self.folder)
        self.temporary.rename(self.folder)

    def _open_unfinished(self) -> None:
        try:
            text = (self.temporary / PROGRESS).read_text('utf-8')
            self.done = int(json.loads(text)['done'])
            self._arrays = {
                file.stem: open_memmap(file, mode='r+')
                for file in sorted(self.temporary.glob('*.npy'))
            }
            valid = all(len(a) == self.total for a in self._arrays.values())
        except (OSError, ValueError, KeyError):
            valid = False
        if not (valid and self._arrays):
            self.done, self._arrays = 0, {}
            shutil.rmtree(self.temporary, ignore_errors=True)

    def _create(self, batch: Mapping[str, np.ndarray]) -> None:
        self.temporary.mkdir(parents=True, exist_ok=True)
        for name, values in batch.items():
            file = self.temporary / f'{name}.npy'
            self._arrays[name] = open_memmap(
                file,
                mode='w+',
                dtype=values.dtype,
                shape=(self.total, *values.shape[1:]),
            )
            _reserve(file)


def _reserve(file: Path) -> None:
    """Take the disk space now.

    Without it, a full disk ends the process when a mapped page is written.

    Raises:
        OSError: There is not enough.
    """
    if not hasattr(os, 'posix_fallocate'):
        return
    try:
        with file.open('r+b') as stream:
            os.posix_fallocate(stream.fileno(), 0, file.stat().st_size)
    except OSError as error:
        error.filename = str(file)
        raise


def _write_json(content: Mapping[str, Any], file: Path) -> None:
    write_atomically(json.dumps(content, indent=1).encode(), file)
