"""A stored pass: outputs of a network and its gates for every image."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from .pass_writer import HEADER


@dataclass(frozen=True)
class StoredPass:
    """A complete pass on the disk; its arrays are memory-mapped.

    N images, C channels of a site, K classes.

    Attributes:
        folder: Folder of the arrays.
        name: Name of the checkpoint in figures and tables.
        sites: Names of the gated sites.
        classes: Names of the classes.
        split: ``'test'`` or ``'train'``.
    """

    folder: Path
    name: str
    sites: tuple[str, ...]
    classes: tuple[str, ...]
    split: str

    @classmethod
    def open(cls, folder: Path, name: str) -> StoredPass | None:
        """The pass in a folder, or ``None`` if there is no complete one."""
        try:
            header = json.loads((folder / HEADER).read_text('utf-8'))
            sites, classes = tuple(header['sites']), tuple(header['classes'])
            found = cls(folder, name, sites, classes, header['split'])
            readable = len(found.labels) == header['images']
        except (OSError, ValueError, KeyError):
            return None
        return found if readable else None

    def __len__(self) -> int:
        return len(self.labels)

    def site_array(self, kind: str, site: str) -> np.ndarray:
        """An array of a site, (N, C).

        ``kind`` is ``'features'`` (spatial means of the activation before
        the gate), ``'logits'``, ``'probs'`` ((N, G) if a decision opens
        several channels) or ``'mask'`` (bool, or the factors of a gate that
        scales channels; 0 is closed).
        """
        return self._array(array_name(kind, self.sites.index(site)))

    @cached_property
    def labels(self) -> np.ndarray:
        """(N,) int64."""
        return self._array('labels')

    @cached_property
    def predictions(self) -> np.ndarray:
        """(N,) int64."""
        return self._array('predictions')

    @cached_property
    def scores(self) -> np.ndarray:
        """(N, K) float32, the outputs of the head."""
        return self._array('scores')

    @cached_property
    def macs(self) -> np.ndarray:
        """(N,) float64 MACs of every image, gates and classifier counted."""
        return self._array('macs')

    @cached_property
    def dense_macs(self) -> np.ndarray:
        """(N,) float64 MACs without gates, before compaction."""
        return self._array('dense_macs')

    @cached_property
    def indices(self) -> np.ndarray:
        """(N,) int64 indices of the images in the data set."""
        return self._array('indices')

    @property
    def correct(self) -> np.ndarray:
        """(N,) bool."""
        return np.asarray(self.predictions) == np.asarray(self.labels)

    def _array(self, name: str) -> Any:
        return np.load(self.folder / f'{name}.npy', mmap_mode='r')


def array_name(kind: str, site: int) -> str:
    """File name of a site's array, without suffix."""
    return f'{kind}_{site:03d}'
