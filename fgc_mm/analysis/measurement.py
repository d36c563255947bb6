"""The numbers of one checkpoint, for tables and figures."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .mask_exchange import ExchangedMasks
from .statistics import (
    Calibration,
    ChannelUse,
    ClusterAgreement,
    MACsBin,
    NeighborAgreement,
    Rank,
)
from .stored_pass import StoredPass

EMBEDDED = 'features', 'gates'


class Summary(NamedTuple):
    """The main numbers of one checkpoint.

    Attributes:
        images: N.
        accuracy: Fraction classified correctly.
        macs: Mean MACs per image.
        dense_macs: MACs per image of the network without gates.
        pruning_ratio: 1 - MACs / dense MACs.
        keep_ratio: Fraction of the gated channels of the chosen sites that
            are open.
        calibration_error: ``None`` if the scores are not probabilities.
        macs_and_error: Rank correlation of an image's MACs and whether it
            is classified wrongly.
        macs_and_confidence: Rank correlation of its MACs and its confidence.
    """

    images: int
    accuracy: float
    macs: float
    dense_macs: float
    pruning_ratio: float
    keep_ratio: float
    calibration_error: float | None
    macs_and_error: Rank
    macs_and_confidence: Rank


class SiteNumbers(NamedTuple):
    """The numbers of one site."""

    site: str
    channels: int
    use: ChannelUse
    clusters: ClusterAgreement
    neighbors: NeighborAgreement


class Embedding(NamedTuple):
    """Images as points (n, 2), computed by the named method."""

    site: str
    space: str
    method: str
    points: np.ndarray


class Retrieval(NamedTuple):
    """For query images, those with the nearest gate vectors.

    Attributes:
        queries: (Q,) indices of images in the pass.
        found: (Q, R) indices of images, nearest first.
        similarity: (Q, R) cosine similarity of the gate vectors.
    """

    queries: np.ndarray
    found: np.ndarray
    similarity: np.ndarray


@dataclass(frozen=True)
class Measurement:
    """All numbers of one checkpoint.

    Attributes:
        stored: The pass that they are computed from.
        sites: Numbers of every chosen site.
        summary: The main numbers.
        clusters: Number of clusters of K-means.
        neighbors: Number of neighbours (K).
        frequency: Execution frequencies by site, (classes, C).
        embedded: Indices of the images in the embeddings.
        embeddings: Features and gates of the shown sites.
        retrieval: By the gate vectors of all chosen sites.
        bins: Images grouped by their MACs.
        calibration: ``None`` if the scores are not probabilities.
        cheapest: Indices of images.
        most_expensive: Indices of images.
        exchanged: The network with masks of other images; empty if it was
            not run with them.
    """

    stored: StoredPass
    sites: tuple[SiteNumbers, ...]
    summary: Summary
    clusters: int
    neighbors: int
    frequency: dict[str, np.ndarray]
    embedded: np.ndarray
    embeddings: tuple[Embedding, ...]
    retrieval: Retrieval
    bins: list[MACsBin]
    calibration: Calibration | None
    cheapest: np.ndarray
    most_expensive: np.ndarray
    exchanged: tuple[ExchangedMasks, ...] = ()

    @property
    def name(self) -> str:
        """Name of the checkpoint."""
        return self.stored.name

    @property
    def shown(self) -> tuple[str, ...]:
        """The sites in embeddings and heat maps."""
        return tuple(dict.fromkeys(e.site for e in self.embeddings))
