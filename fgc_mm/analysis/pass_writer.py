"""Arrays that grow by the batch, on the disk; what is cut off goes on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap

from fgc_mm.reliability.atomic_file import write_atomically

HEADER, PROGRESS = 'pass.json', 'progress.json'
SECONDS = 5.0  # between two notes of how far it got


class PassWriter:
    """Writes one pass aside, array by array, and renames it when whole.

    Every array is a ``.npy`` file of its final size, mapped into memory, so
    that only the pages of the current batch are held. How many images are
    done is noted now and then; a writer for the same folder goes on there.

    Args:
        folder: Where the whole pass will be.
        total: Images of the pass.

    Attributes:
        done: Images that are written.
    """

    def __init__(self, folder: Path, total: int) -> None:
        self.folder = folder
        self.aside = folder.with_name(f'.{folder.name}.part')
        self.total = total
        self.done = 0
        self._arrays: dict[str, np.memmap] = {}
        self._noted = monotonic()
        self._open_unfinished()

    def write(self, batch: Mapping[str, np.ndarray]) -> None:
        """Append one batch; every array (N, ...) with the same N."""
        if not self._arrays:
            self._create(batch)
        count = len(next(iter(batch.values())))
        for name, values in batch.items():
            self._arrays[name][self.done : self.done + count] = values
        self.done += count
        if monotonic() - self._noted > SECONDS:
            self.note()

    def note(self) -> None:
        """Put on the disk what is written, and how much that is."""
        for array in self._arrays.values():
            array.flush()
        if self._arrays:
            _write_json(dict(done=self.done), self.aside / PROGRESS)
        self._noted = monotonic()

    def finish(self, header: Mapping[str, Any]) -> None:
        """Write the header and give the folder its name."""
        self.note()
        self._arrays = {}
        _write_json(header, self.aside / HEADER)
        (self.aside / PROGRESS).unlink()
        if self.folder.exists():
            shutil.rmtree(self.folder)
        self.aside.rename(self.folder)

    def _open_unfinished(self) -> None:
        try:
            text = (self.aside / PROGRESS).read_text()
            self.done = int(json.loads(text)['done'])
            self._arrays = {
                file.stem: open_memmap(file, mode='r+')
                for file in sorted(self.aside.glob('*.npy'))
            }
            whole = all(len(a) == self.total for a in self._arrays.values())
        except (OSError, ValueError, KeyError):
            whole = False
        if not (whole and self._arrays):
            self.done, self._arrays = 0, {}
            shutil.rmtree(self.aside, ignore_errors=True)

    def _create(self, batch: Mapping[str, np.ndarray]) -> None:
        self.aside.mkdir(parents=True, exist_ok=True)
        for name, values in batch.items():
            self._arrays[name] = open_memmap(
                self.aside / f'{name}.npy',
                mode='w+',
                dtype=values.dtype,
                shape=(self.total, *values.shape[1:]),
            )


def _write_json(content: Mapping[str, Any], file: Path) -> None:
    write_atomically(json.dumps(content, indent=1).encode(), file)
