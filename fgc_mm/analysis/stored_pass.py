"""A stored pass: outputs of a network and its gates for every image."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from .pass_writer import HEADER


def _array(name: str) -> cached_property[np.ndarray]:
    """An array of a pass, mapped into memory when it is first used."""
    return cached_property(lambda stored: _mapped(stored.folder, name))


def _mapped(folder: Path, name: str) -> Any:
    return np.load(folder / f'{name}.npy', mmap_mode='r')


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
        labels: (N,) int64.
        predictions: (N,) int64.
        scores: (N, K) float32, the outputs of the head.
        macs: (N,) float64 MACs of every image, gates and classifier counted.
        dense_macs: (N,) float64 MACs without gates, before compaction.
        indices: (N,) int64 indices of the images in the data set.
    """

    folder: Path
    name: str
    sites: tuple[str, ...]
    classes: tuple[str, ...]
    split: str
    labels = _array('labels')
    predictions = _array('predictions')
    scores = _array('scores')
    macs = _array('macs')
    dense_macs = _array('dense_macs')
    indices = _array('indices')

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
        name = array_name(kind, self.sites.index(site))
        return _mapped(self.folder, name)

    @property
    def correct(self) -> np.ndarray:
        """(N,) bool."""
        return np.asarray(self.predictions) == np.asarray(self.labels)


def array_name(kind: str, site: int) -> str:
    """File name of a site's array, without suffix."""
    return f'{kind}_{site:03d}'
