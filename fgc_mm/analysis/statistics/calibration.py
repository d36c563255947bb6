"""Calibration of the class scores: confidence against accuracy."""

from typing import NamedTuple

import numpy as np


class ConfidenceBin(NamedTuple):
    """Predictions of similar confidence.

    Attributes:
        low: Lower end of the bin (excluded, except for 0).
        high: Upper end (included).
        images: Number of images.
        confidence: Their mean confidence; ``None`` without images.
        accuracy: Fraction that is correct; ``None`` without images.
    """

    low: float
    high: float
    images: int
    confidence: float | None
    accuracy: float | None


class Calibration(NamedTuple):
    """Confidence against accuracy.

    Attributes:
        error: Expected calibration error: the mean, over the images, of the
            gap between confidence and accuracy of their bin.
        bins: Bins of equal width from 0 to 1.
    """

    error: float
    bins: list[ConfidenceBin]


def calibration(
    confidence: np.ndarray, correct: np.ndarray, bins: int = 15
) -> Calibration | None:
    """Expected calibration error and its bins.

    Source: "On calibration of modern neural networks" (Guo et al., ICML
    2017), Eq. 2 and 3.

    Args:
        confidence: (N,) largest class score of every image.
        correct: (N,) bool.
        bins: Number of bins of equal width.

    Returns:
        ``None`` if a score is not a probability.
    """
    if not ((confidence >= 0) & (confidence <= 1 + 1e-5)).all():
        return None
    edges = np.linspace(0, 1, bins + 1)
    bin_of = np.searchsorted(edges[1:-1], confidence, side='left')
    rows, error = [], 0.0
    for number in range(bins):
        chosen = bin_of == number
        count = int(chosen.sum())
        mean = accuracy = None
        if count:
            mean = float(confidence[chosen].mean())
            accuracy = float(correct[chosen].mean())
            error += count / len(confidence) * abs(mean - accuracy)
        low, high = float(edges[number]), float(edges[number + 1])
        rows.append(ConfidenceBin(low, high, count, mean, accuracy))
    return Calibration(error, rows)
