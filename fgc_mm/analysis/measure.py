"""All statistics of one stored pass."""

import numpy as np

from ..errors import FGCError
from .measurement import EMBEDDED, Embedding, Measurement, SiteNumbers, Summary
from .options import (
    AnalysisOptions,
    chosen_sites,
    cluster_count,
    draw_indices,
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
        previous: Of the previous checkpoint; embeddings start from its
            points, so that the positions of an image can be compared.

    Raises:
        FGCError: Only one class, fewer images than clusters or neighbours,
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
    embedded = draw_indices(len(stored), options.embedded_images, options.seed)
    cheapest, most_expensive = extremes(stored.macs, options.extremes)
    return Measurement(
        stored=stored,
        sites=sites,
        summary=_summary(stored, sites, confidence, calibrated),
        clusters=clusters,
        neighbors=neighbors,
        frequency={
            name: execution_frequency(
                stored.site_array('mask', name), labels, len(stored.classes)
            )
            for name in names
        },
        embedded=embedded,
        embeddings=tuple(
            _embedding(
                stored, name, space, method, embedded, options, previous
            )
            for name in names[-options.shown_sites :]
            for space in EMBEDDED
        ),
        retrieval=retrieve(stored, names, options),
        bins=macs_bins(
            stored.macs, stored.correct, confidence, options.bins
        ),
        calibration=calibrated,
        cheapest=cheapest,
        most_expensive=most_expensive,
    )  # fmt: skip


def check_classes(stored: StoredPass) -> None:
    """Check that there are several classes, and that the model has them.

    Raises:
        FGCError: Only one class, a class that the model does not have, or a
            score that is not a number.
    """
    wrong = int((~np.isfinite(stored.scores).all(axis=1)).sum())
    if wrong:
        raise FGCError(
            f'{stored.name} gives {wrong} of {len(stored)} images class '
            'scores that are nan or infinite, so it has no result; give a '
            'checkpoint of a training that did not diverge.'
        )
    present = np.unique(stored.labels)
    known = stored.scores.shape[1]
    foreign = present[(present < 0) | (present >= known)]
    if len(foreign):
        raise FGCError(
            f'an image has the class number {foreign[0]}, but the model '
            f'has the classes 0 to {known - 1}; give the data set that it '
            'was trained on.'
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
    features = np.asarray(stored.site_array('features', site))
    gates = gate_vectors(stored, site, options)
    labels = np.asarray(stored.labels)
    some = draw_indices(len(stored), options.most_images, options.seed)
    # first, since it takes less time to find out that an option does not fit
    agreement = neighbor_agreement(features, gates, labels, some, neighbors)
    return SiteNumbers(
        site,
        features.shape[1],
        channel_use(stored.site_array('mask', site)),
        cluster_agreement(
            features[some], gates[some], labels[some], clusters, options.seed
        ),
        agreement,
    )


def _embedding(
    stored: StoredPass,
    site: str,
    space: str,
    method: str,
    embedded: np.ndarray,
    options: AnalysisOptions,
    previous: Measurement | None,
) -> Embedding:
    if space == 'gates':
        vectors = gate_vectors(stored, site, options)[embedded]
    else:
        vectors = stored.site_array('features', site)[embedded]
    before = previous.embeddings if previous else ()
    starts = {(other.site, other.space): other.points for other in before}
    start = starts.get((site, space))
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
