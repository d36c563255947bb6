"""How often channels are open, overall and for each class. (Fig. 8)"""

from typing import NamedTuple

import numpy as np


class ChannelUse(NamedTuple):
    """How the images use the channels of a site.

    Attributes:
        keep_ratio: Fraction of open channels, over images and channels.
        dead: Number of channels that are open for no image.
        always: Number of channels that are open for every image.
        patterns: Number of different masks.
    """

    keep_ratio: float
    dead: int
    always: int
    patterns: int


def channel_use(mask: np.ndarray) -> ChannelUse:
    """Counts of dead and always-open channels.

    Args:
        mask: (N, C); 0 is closed.
    """
    opened = np.asarray(mask) != 0
    rate = opened.mean(axis=0)
    packed = np.packbits(opened, axis=1)
    return ChannelUse(
        float(rate.mean()),
        int((rate == 0).sum()),
        int((rate == 1).sum()),
        len(np.unique(packed, axis=0)),
    )


def execution_frequency(
    mask: np.ndarray, labels: np.ndarray, classes: int
) -> np.ndarray:
    """Fraction of a class's images that open a channel.

    Source: "Feature-Gate Coupling for Dynamic Network Pruning" (arXiv
    2111.14302), Fig. 8.

    Args:
        mask: (N, C); 0 is closed.
        labels: (N,) classes.
        classes: K.

    Returns:
        (K, C) in [0, 1]; nan for a class without an image.
    """
    frequency = np.full((classes, mask.shape[1]), np.nan)
    for number in np.unique(labels):
        frequency[number] = (mask[labels == number] != 0).mean(axis=0)
    return frequency
