"""Are hard images dear? Accuracy over the MACs that an image cost."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.stats import binomtest, spearmanr


class MACsBin(NamedTuple):
    """Images of neighbouring MACs.

    Attributes:
        images: How many.
        low: Their least MACs.
        high: Their most MACs.
        mean: Of their MACs.
        accuracy: Share that is classified correctly.
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
    """Spearman's rank correlation; ``None`` where one side is constant."""

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
        bins: Quantiles wanted; fewer come out where many images cost the
            same, which are never torn apart.
    """
    shares = np.linspace(0, 1, bins + 1)[1:-1]
    edges = np.unique(np.quantile(macs, shares))
    # an image at an edge belongs below it
    place = np.searchsorted(edges, macs, side='left')
    return [
        _macs_bin(macs[chosen], correct[chosen], confidence[chosen])
        for chosen in (place == number for number in range(bins))
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
    """Spearman's correlation of two numbers per image.

    Args:
        first: (N,).
        second: (N,).
    """
    first, second = (np.asarray(x, np.float64) for x in (first, second))
    if np.ptp(first) == 0 or np.ptp(second) == 0 or len(first) < 3:
        return Rank(None, None)
    found = spearmanr(first, second)
    return Rank(float(found.statistic), float(found.pvalue))


def extremes(macs: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The cheapest and the dearest images.

    Args:
        macs: (N,).
        count: Of either kind, at most half of the images.

    Returns:
        Their numbers, the cheapest first and the dearest first; equal MACs
        in the order of the images.
    """
    count = min(count, len(macs) // 2)
    macs = np.asarray(macs)
    cheapest = np.argsort(macs, kind='stable')[:count]
    dearest = np.argsort(-macs, kind='stable')[:count]
    return cheapest, dearest
