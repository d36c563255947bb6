"""Classifying images, with the MACs of each image."""

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

REQUIRED_KEYS = {
    '': ('classes', 'preprocessing', 'sites', 'macs', 'scores'),
    'preprocessing': ('steps', 'size', 'channel_order', 'bits', 'mean', 'std'),
    'macs': ('dense', 'fixed', 'layers', 'positions'),
}
SITE_KEYS = 'logits', 'output'
RESIZE_KEYS = 'edge', 'size', 'interpolation', 'backend'


@dataclass(frozen=True)
class Prediction:
    """Prediction for one image.

    Attributes:
        picture: Path of the file.
        classes: Names and probabilities, the most probable first.
        macs: MACs of this image, gates included; nan if a gate's output is.
        share: ``macs`` as a fraction of those of the network without gates.
        open: Fraction of the gated channels that are open.
        milliseconds: Time of the network, without reading the image.
    """

    picture: str
    classes: list[tuple[str, float]]
    macs: float
    share: float
    open: float
    milliseconds: float


class Classifier:
    """A model that takes image files.

    Args:
        model: Its file must have been written by ``tools/export/bundle.py``.

    Raises:
        RuntimeFileError: The file has no preprocessing settings.
    """

    def __init__(self, model: Model) -> None:
        _check_complete(model.meta)
        self.model = model
        self.settings = model.meta['preprocessing']
        self._macs = MACs(model.meta['macs'])

    def read(self, path: str | Path) -> np.ndarray:
        """A preprocessed image, (1, C, H, W).

        Raises:
            FGCError: It is not an image, or has the wrong size.
            OSError: The file cannot be read.
        """
        grey = self.settings['channel_order'] == 'grey'
        pixels = read_picture(path, grey, self.settings['bits'])
        return preprocess(pixels, self.settings)[None]

    def __call__(
        self, path: str | Path, top: int = 5, threads: int = 1
    ) -> Prediction:
        """Classify an image file.

        Args:
            path: Path of the file.
            top: Number of classes to return.
            threads: See :meth:`Model.run`.

        Raises:
            FGCError: It is not an image, or has the wrong size.
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
            self._top_classes(logits.reshape(-1), top),
            float(macs[0]),
            float(macs[0]) / self._macs.dense,
            float(opened[0]),
            1e3 * seconds,
        )

    def cost(
        self, outputs: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """MACs of some images, and the fraction of their open channels.

        Args:
            outputs: Result of :meth:`Model.run` with decisions.

        Returns:
            (N,) MACs, nan if a gate outputs nan or inf; and (N,) fractions.
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

    def _top_classes(
        self, logits: np.ndarray, top: int
    ) -> list[tuple[str, float]]:
        scores = probabilities(logits, self.model.meta['scores'])
        names = self.model.meta['classes']
        best = np.argsort(-scores, kind='stable')[:top]
        return [(names[index], float(scores[index])) for index in best]


def _check_complete(meta: Mapping[str, Any]) -> None:
    for part, keys in REQUIRED_KEYS.items():
        _check_keys(meta[part] if part else meta, keys)
    for site in meta['sites']:
        _check_keys(site, SITE_KEYS)
    settings = meta['preprocessing']
    for step in settings['steps']:
        if 'resize' in step:
            _check_keys(step['resize'], RESIZE_KEYS)
    _check_normalisation(settings)


def _check_keys(part: Any, keys: Sequence[str]) -> None:
    given = part if isinstance(part, Mapping) else ()
    missing = [key for key in keys if key not in given]
    if missing:
        raise RuntimeFileError(
            f"the file's JSON has no {missing[0]!r}, which image files "
            'need; write it with tools/export/bundle.py, or run '
            'fgc_mm.runtime.Model on arrays.'
        )


def _check_normalisation(settings: Mapping[str, Any]) -> None:
    mean, std = settings['mean'], settings['std']
    if mean is None and std is None:
        return
    count = 1 if settings['channel_order'] == 'grey' else 3
    for name, numbers in (('mean', mean), ('std', std)):
        if not isinstance(numbers, list) or len(numbers) not in (1, count):
            raise RuntimeFileError(
                f"the file's JSON has {name}={numbers!r}, but the "
                f'normalisation of {settings["channel_order"]!r} images '
                f'needs {count} numbers; write it with '
                'tools/export/bundle.py.'
            )


def probabilities(logits: np.ndarray, scores: str) -> np.ndarray:
    """Probabilities of all classes.

    Args:
        logits: (classes,).
        scores: ``'softmax'``, or ``'sigmoid'`` for independent labels.
    """
    logits = logits.astype(np.float64)
    if scores == 'sigmoid':
        return np.exp(-np.logaddexp(0, -logits))
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()
