"""All statistics of one stored pass."""

from __future__ import annotations

import numpy as np

from ..errors import FGCError
from .measurement import EMBEDDED, Embedding, Measurement, SiteNumbers, Summary
from .options import (
    AnalysisOptions,
    chosen_sites,
    cluster_count,
    drawn,
    neighbor_count,
)
from .retrieval import gate_vectors, retrieve
from .statistics import (
    Calibration,
    calibration,
    channel_use,
    choose_method,
    cluster_agreement,
    embed,
    execution_frequency,
    extremes,
    macs_bins,
    neighbor_agreement,
    rank_correlation,
)
from .stored_pass import StoredPass


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
        retrieval=retrieve(stored, names, options),
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
