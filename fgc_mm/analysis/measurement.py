"""The numbers of one checkpoint, as they are handed to tables and figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

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
    """One checkpoint in a line.

    Attributes:
        images: N.
        accuracy: Share classified correctly.
        macs: Mean MACs per image.
        dense_macs: Of the network without gates.
        pruning_ratio: 1 - MACs / dense MACs.
        keep_ratio: Share of the gated channels of the chosen sites open.
        calibration_error: ``None`` if scores are no probabilities.
        macs_and_error: Rank correlation of an image's MACs and whether it
            is classified wrongly.
        macs_and_confidence: Of its MACs and its confidence.
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
    """The images as points: ``points`` (n, 2) by the named method."""

    site: str
    space: str
    method: str
    points: np.ndarray


class Retrieval(NamedTuple):
    """For query images, those with the nearest gates.

    Attributes:
        queries: (Q,) numbers of images in the pass.
        found: (Q, R) likewise, nearest first.
        similarity: (Q, R) cosine similarity of the gate vectors.
    """

    queries: np.ndarray
    found: np.ndarray
    similarity: np.ndarray


@dataclass(frozen=True)
class Measurement:
    """All numbers of one checkpoint.

    Attributes:
        stored: What they are computed from.
        sites: Of every chosen site.
        summary: In a line.
        clusters: Of K-means.
        neighbors: K.
        frequency: By site, (K classes, C).
        embedded: Numbers of the images in the embeddings.
        embeddings: Of the shown sites, features and gates.
        retrieval: By the gates of all chosen sites.
        bins: Of the MACs.
        calibration: ``None`` if scores are no probabilities.
        cheapest: Numbers of images.
        dearest: Numbers of images.
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
    dearest: np.ndarray

    @property
    def name(self) -> str:
        """Of the checkpoint."""
        return self.stored.name

    @property
    def shown(self) -> tuple[str, ...]:
        """The sites that maps and heat maps show."""
        return tuple(dict.fromkeys(e.site for e in self.embeddings))
