"""Classifying images, with the MACs of each image."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fgc_mm.runtime.macs import MACs
from fgc_mm.runtime.meta_check import check_meta
from fgc_mm.runtime.model import Model
from fgc_mm.runtime.picture import read_picture
from fgc_mm.runtime.preprocessing import preprocess


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
        RuntimeFileError: The file's JSON does not describe its network.
    """

    def __init__(self, model: Model) -> None:
        check_meta(model.meta, model.image_shape, model.output_shapes)
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
