"""All statistics of one stored pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..errors import FGCError
from .options import (
    AnalysisOptions,
    chosen_sites,
    cluster_count,
    drawn,
    neighbor_count,
)
from .statistics import (
    Calibration,
    ChannelUse,
    ClusterAgreement,
    MACsBin,
    NeighborAgreement,
    Rank,
    calibration,
    channel_use,
    choose_method,
    cluster_agreement,
    embed,
    execution_frequency,
    extremes,
    macs_bins,
    nearest_images,
    neighbor_agreement,
    rank_correlation,
    unit_rows,
)
from .stored_pass import StoredPass

EMBEDDED = 'features', 'gates'
TINY = np.finfo(np.float32).tiny


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


def measure(
    stored: StoredPass,
    options: AnalysisOptions,
    previous: Measurement | None = None,
) -> Measurement:
    """All numbers of a stored pass.

    Args:
        stored: The pass.
        options: What to measure.
        previous: Of the checkpoint before: embeddings start from its points,
            so that an image stays about where it was.

    Raises:
        FGCError: One class only, fewer images than clusters or neighbours,
            an unknown site, an embedding that is not installed.
    """
    check_classes(stored)
    names = chosen_sites(stored.sites, options.sites)
    clusters = cluster_count(stored, options)
    neighbors = neighbor_count(stored, options)
    method = choose_method(options.embedding)
    labels = np.asarray(stored.labels)
    confidence = np.asarray(stored.scores).max(axis=1)
    calibrated = calibration(confidence, stored.correct)
    sites = tuple(
        _site_numbers(stored, name, clusters, neighbors, options)
        for name in names
    )
    few = drawn(len(stored), options.embedded_images, options.seed)
    cheapest, dearest = extremes(stored.macs, options.extremes)
    return Measurement(
        stored=stored,
        sites=sites,
        summary=_summary(stored, sites, confidence, calibrated),
        clusters=clusters,
        neighbors=neighbors,
        frequency={
            name: execution_frequency(
                stored.space('mask', name), labels, len(stored.classes)
            )
            for name in names
        },
        embedded=few,
        embeddings=tuple(
            _embedding(stored, name, space, method, few, options, previous)
            for name in names[-options.shown_sites :]
            for space in EMBEDDED
        ),
        retrieval=_retrieval(stored, names, options),
        bins=macs_bins(
            stored.macs, stored.correct, confidence, options.bins
        ),
        calibration=calibrated,
        cheapest=cheapest,
        dearest=dearest,
    )  # fmt: skip


def check_classes(stored: StoredPass) -> None:
    """Refuse images of one class, or of classes that the model lacks.

    Raises:
        FGCError: There is nothing to compare.
    """
    present = np.unique(stored.labels)
    known = stored.scores.shape[1]
    foreign = present[(present < 0) | (present >= known)]
    if len(foreign):
        raise FGCError(
            f'an image has the class number {foreign[0]}, but the model '
            f'knows the classes 0 to {known - 1}; give the data set that it '
            'was trained for.'
        )
    if len(present) < 2:
        raise FGCError(
            f'all {len(stored)} images have the class '
            f'{stored.classes[present[0]]}, but the analysis compares '
            'classes; give a data set, or more --images, with at least two.'
        )


def gate_vectors(
    stored: StoredPass, site: str, options: AnalysisOptions
) -> np.ndarray:
    """(N, C) float32: what stands for the gate in gate space."""
    return np.asarray(stored.space(options.gate_vector, site), np.float32)


def _site_numbers(
    stored: StoredPass,
    site: str,
    clusters: int,
    neighbors: int,
    options: AnalysisOptions,
) -> SiteNumbers:
    features = np.asarray(stored.space('features', site))
    gates = gate_vectors(stored, site, options)
    labels = np.asarray(stored.labels)
    some = drawn(len(stored), options.most_images, options.seed)
    return SiteNumbers(
        site,
        features.shape[1],
        channel_use(stored.space('mask', site)),
        cluster_agreement(
            features[some], gates[some], labels[some], clusters, options.seed
        ),
        neighbor_agreement(features, gates, labels, some, neighbors),
    )


def _embedding(
    stored: StoredPass,
    site: str,
    space: str,
    method: str,
    few: np.ndarray,
    options: AnalysisOptions,
    previous: Measurement | None,
) -> Embedding:
    if space == 'gates':
        vectors = gate_vectors(stored, site, options)[few]
    else:
        vectors = stored.space('features', site)[few]
    start = None
    for before in previous.embeddings if previous else ():
        if (before.site, before.space) == (site, space):
            start = before.points
    points, name = embed(vectors, method, options.seed, start)
    return Embedding(site, space, name, points)


def _retrieval(
    stored: StoredPass, sites: tuple[str, ...], options: AnalysisOptions
) -> Retrieval:
    # every site counts alike, however many channels it has
    some = drawn(len(stored), options.most_images, options.seed)
    rows = np.concatenate(
        [unit_rows(gate_vectors(stored, s, options)[some]) for s in sites],
        axis=1,
    )
    labels = np.asarray(stored.labels)[some]
    queries = query_images(labels, options.queries, options.seed)
    found = nearest_images(
        rows, queries, min(options.retrieved, len(some) - 1)
    )
    lengths = np.linalg.norm(rows, axis=1)
    near = np.einsum('qc,qrc->qr', rows[queries], rows[found])
    near /= np.maximum(lengths[queries][:, None] * lengths[found], TINY)
    return Retrieval(some[queries], some[found], near)


def query_images(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Query images, each of another class while there are such; (Q,)."""
    order = np.random.default_rng(seed).permutation(len(labels))
    seen: dict[int, int] = {}
    turn = []
    for index in order:
        label = int(labels[index])
        turn.append(seen.get(label, 0))
        seen[label] = turn[-1] + 1
    first = order[np.argsort(turn, kind='stable')][:count]
    return first[np.argsort(np.asarray(labels)[first], kind='stable')]


def _summary(
    stored: StoredPass,
    sites: tuple[SiteNumbers, ...],
    confidence: np.ndarray,
    calibrated: Calibration | None,
) -> Summary:
    macs, dense = float(stored.macs.mean()), float(stored.dense_macs.mean())
    channels = sum(site.channels for site in sites)
    opened = sum(site.use.keep_ratio * site.channels for site in sites)
    return Summary(
        len(stored),
        float(stored.correct.mean()),
        macs,
        dense,
        1 - macs / dense,
        opened / channels,
        None if calibrated is None else calibrated.error,
        rank_correlation(stored.macs, ~stored.correct),
        rank_correlation(stored.macs, confidence),
    )
