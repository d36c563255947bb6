"""Classes of pictures, and what each picture costs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fgc_mm.runtime.errors import RuntimeFileError
from fgc_mm.runtime.macs import MACs
from fgc_mm.runtime.model import Model
from fgc_mm.runtime.picture import read_picture
from fgc_mm.runtime.preprocessing import preprocess

NEEDED = {
    '': ('classes', 'preprocessing', 'sites', 'macs', 'scores'),
    'preprocessing': ('steps', 'size', 'channel_order', 'bits', 'mean'),
}


@dataclass(frozen=True)
class Prediction:
    """What the network says of one picture.

    Attributes:
        picture: Path of the file.
        classes: Names and probabilities, the most probable first.
        macs: MACs of this picture, gates included; nan if a gate says nan.
        share: ``macs`` as a share of the network without gates.
        open: Share of the gated channels that are open.
        milliseconds: Of the network, without reading the picture.
    """

    picture: str
    classes: list[tuple[str, float]]
    macs: float
    share: float
    open: float
    milliseconds: float


class Classifier:
    """A model that takes picture files.

    Args:
        model: Its file must have been written by ``tools/export/bundle.py``.

    Raises:
        RuntimeFileError: The file does not say how pictures are preprocessed.
    """

    def __init__(self, model: Model) -> None:
        _check_complete(model.meta)
        self.model = model
        self.settings = model.meta['preprocessing']
        self._macs = MACs(model.meta['macs'])

    def read(self, path: str | Path) -> np.ndarray:
        """A picture as the network takes it, (1, C, H, W).

        Raises:
            FGCError: It is no picture, or has the wrong size.
            OSError: The file cannot be read.
        """
        grey = self.settings['channel_order'] == 'grey'
        pixels = read_picture(path, grey, self.settings['bits'])
        return preprocess(pixels, self.settings)[None]

    def __call__(
        self, path: str | Path, top: int = 5, threads: int = 1
    ) -> Prediction:
        """The classes of a picture.

        Args:
            path: Of the file.
            top: How many classes are named.
            threads: See :meth:`Model.run`.

        Raises:
            FGCError: It is no picture, or has the wrong size.
            OSError: The file cannot be read.
        """
        image = self.read(path)
        logits, *decisions = self.model.run(image, True, threads)
        started = time.perf_counter()
        self.model.run(image, False, threads)
        seconds = time.perf_counter() - started
        macs, opened = self.cost([logits, *decisions])
        return Prediction(
            str(path),
            self._named(logits.reshape(-1), top),
            float(macs[0]),
            float(macs[0]) / self._macs.dense,
            float(opened[0]),
            1e3 * seconds,
        )

    def cost(
        self, outputs: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """MACs of some images, and the share of their channels open.

        Args:
            outputs: Of :meth:`Model.run` with decisions.

        Returns:
            (N,) MACs, nan where the gates say nan or inf; and (N,) shares.
        """
        count = len(outputs[0])
        sites = self.model.meta['sites']
        masks, broken = [], np.zeros(count, bool)
        for site in sites:
            masks.append(outputs[site['output']].reshape(count, -1))
            logits = outputs[site['logits']].reshape(count, -1)
            broken |= ~np.isfinite(logits).all(axis=1)
        macs = self._macs(masks)
        macs[broken] = np.nan
        opened = np.concatenate(masks, axis=1) != 0
        return macs, opened.mean(axis=1)

    def _named(self, logits: np.ndarray, top: int) -> list[tuple[str, float]]:
        scores = probabilities(logits, self.model.meta['scores'])
        names = self.model.meta['classes']
        best = np.argsort(-scores, kind='stable')[:top]
        return [(names[index], float(scores[index])) for index in best]


def _check_complete(meta: Mapping[str, Any]) -> None:
    for part, keys in NEEDED.items():
        given = meta[part] if part else meta
        missing = [key for key in keys if key not in given]
        if missing:
            raise RuntimeFileError(
                f"the file's JSON has no {missing[0]!r}, which pictures need; "
                'write it with tools/export/bundle.py, or run '
                'fgc_mm.runtime.Model on arrays.'
            )


def probabilities(logits: np.ndarray, scores: str) -> np.ndarray:
    """Of every class.

    Args:
        logits: (classes,).
        scores: ``'softmax'``, or ``'sigmoid'`` where each class is a yes or
            no of its own.
    """
    logits = logits.astype(np.float64)
    if scores == 'sigmoid':
        return np.exp(-np.logaddexp(0, -logits))
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()
