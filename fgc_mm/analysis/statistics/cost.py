"""Accuracy and confidence over the MACs of an image."""

from typing import NamedTuple

import numpy as np
from scipy.stats import binomtest, spearmanr


class MACsBin(NamedTuple):
    """Images with similar MACs.

    Attributes:
        images: Number of images.
        low: Minimum of their MACs.
        high: Maximum of their MACs.
        mean: Mean of their MACs.
        accuracy: Fraction that is classified correctly.
        accuracy_low: Lower end of its 95 % interval (Wilson).
        accuracy_high: Upper end.
        confidence: Mean of the largest class score.
    """

    images: int
    low: float
    high: float
    mean: float
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    confidence: float


class Rank(NamedTuple):
    """Spearman's rank correlation; ``None`` if a variable is constant."""

    correlation: float | None
    p_value: float | None


def macs_bins(
    macs: np.ndarray, correct: np.ndarray, confidence: np.ndarray, bins: int
) -> list[MACsBin]:
    """Accuracy by quantiles of the MACs.

    Args:
        macs: (N,) of the images.
        correct: (N,) bool.
        confidence: (N,) largest class score.
        bins: Number of quantiles; fewer are returned if many images have
            equal MACs, since these stay in one bin.
    """
    quantiles = np.linspace(0, 1, bins + 1)[1:-1]
    edges = np.unique(np.quantile(macs, quantiles))
    # an image at an edge belongs to the bin below it
    bin_of = np.searchsorted(edges, macs, side='left')
    return [
        _macs_bin(macs[chosen], correct[chosen], confidence[chosen])
        for chosen in (bin_of == number for number in range(bins))
        if chosen.any()
    ]


def _macs_bin(
    macs: np.ndarray, correct: np.ndarray, confidence: np.ndarray
) -> MACsBin:
    right, count = int(correct.sum()), len(correct)
    interval = binomtest(right, count).proportion_ci(method='wilson')
    return MACsBin(
        count,
        float(macs.min()),
        float(macs.max()),
        float(macs.mean()),
        right / count,
        float(interval.low),
        float(interval.high),
        float(confidence.mean()),
    )


def rank_correlation(first: np.ndarray, second: np.ndarray) -> Rank:
    """Spearman's correlation of two numbers per image, (N,) each."""
    first, second = (np.asarray(x, np.float64) for x in (first, second))
    if np.ptp(first) == 0 or np.ptp(second) == 0 or len(first) < 3:
        return Rank(None, None)
    found = spearmanr(first, second)
    return Rank(float(found.statistic), float(found.pvalue))


def extremes(macs: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The cheapest and the most expensive images.

    Args:
        macs: (N,).
        count: Of each kind; at most half of the images are returned.

    Returns:
        Indices of the cheapest images, in ascending order of the MACs, and
        of the most expensive ones, in descending order; images with equal
        MACs in the order of the data set.
    """
    count = min(count, len(macs) // 2)
    macs = np.asarray(macs)
    cheapest = np.argsort(macs, kind='stable')[:count]
    most_expensive = np.argsort(-macs, kind='stable')[:count]
    return cheapest, most_expensive
