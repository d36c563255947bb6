"""What is measured, and how: every choice of an analysis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np

from ..errors import FGCError, check_choice
from .stored_pass import StoredPass

GATE_VECTORS = 'logits', 'probs', 'mask'
MOST_NEIGHBORS = 200  # K of the paper
NEIGHBOR_SHARE = 0.02
POSITIVE = (
    'bins', 'most_images', 'embedded_images', 'queries', 'retrieved',
    'extremes', 'shown_sites',
)  # fmt: skip


@dataclass(frozen=True)
class AnalysisOptions:
    """Every choice of an analysis.

    Attributes:
        sites: Names or shell patterns of the sites; all by default.
        gate_vector: What stands for a gate in gate space: ``'logits'`` (what
            the coupling loss contrasts), ``'probs'`` or ``'mask'``.
        clusters: Of K-means; by default as many as classes.
        neighbors: K; by default a fiftieth of the images, at most 200.
        bins: Quantiles of the MACs.
        most_images: Clusters and queries of neighbours take no more images
            than this, drawn by the seed.
        embedding: ``'auto'``, ``'umap'``, ``'tsne'`` or ``'pca'``.
        embedded_images: No more points than this in an embedding.
        queries: Query images of the retrieval.
        retrieved: Images retrieved for each.
        extremes: Cheapest and dearest images to show.
        shown_sites: Maps and heat maps show so many sites, the last ones.
        seed: Of all that is random.

    Raises:
        FGCError: A number that cannot be.
    """

    sites: tuple[str, ...] = ()
    gate_vector: str = 'logits'
    clusters: int | None = None
    neighbors: int | None = None
    bins: int = 10
    most_images: int = 10_000
    embedding: str = 'auto'
    embedded_images: int = 1_500
    queries: int = 6
    retrieved: int = 8
    extremes: int = 10
    shown_sites: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        for name in POSITIVE:
            if getattr(self, name) < 1:
                raise FGCError(
                    f'{name}={getattr(self, name)} of the analysis is no '
                    'positive number; give one.'
                )
        if not 0 <= self.seed < 2**32:
            raise FGCError(
                f'--seed {self.seed} is outside 0 to 4294967295, the seeds '
                'that numpy takes; give another.'
            )
        check_choice(
            f'gate vector {self.gate_vector!r}', self.gate_vector, GATE_VECTORS
        )


def chosen_sites(
    known: Sequence[str], wanted: Sequence[str]
) -> tuple[str, ...]:
    """The sites that are meant, in the order of the network.

    Raises:
        FGCError: A pattern that no site matches.
    """
    for pattern in wanted:
        if not any(fnmatchcase(name, pattern) for name in known):
            raise FGCError(
                f'--sites {pattern} matches none of the {len(known)} gated '
                f'sites; choose among {", ".join(known)}.'
            )
    return tuple(
        name
        for name in known
        if not wanted or any(fnmatchcase(name, p) for p in wanted)
    )


def cluster_count(stored: StoredPass, options: AnalysisOptions) -> int:
    """Clusters of K-means: as asked for, or as many as classes.

    Raises:
        FGCError: Fewer than two, or more than images.
    """
    seen = len(np.unique(stored.labels))
    count = seen if options.clusters is None else options.clusters
    images = min(len(stored), options.most_images)
    if not 2 <= count <= images:
        raise FGCError(
            f'--clusters {count} does not fit {images} images: K-means needs '
            'at least 2 clusters and as many images as clusters; give more '
            '--images or another number.'
        )
    return count


def neighbor_count(stored: StoredPass, options: AnalysisOptions) -> int:
    """K of the neighbourhoods.

    Raises:
        FGCError: Not between 1 and the number of images.
    """
    count = options.neighbors
    if count is None:
        share = round(len(stored) * NEIGHBOR_SHARE)
        count = min(max(share, 1), MOST_NEIGHBORS)
    if not 0 < count < len(stored):
        raise FGCError(
            f'--neighbors {count} does not fit {len(stored)} images: an '
            'image has at least one neighbour and fewer than there are '
            'images; give more --images or another number.'
        )
    return count


def drawn(total: int, most: int, seed: int) -> np.ndarray:
    """At most so many of the numbers below ``total``, ascending."""
    if total <= most:
        return np.arange(total)
    generator = np.random.default_rng(seed)
    return np.sort(generator.choice(total, most, replace=False))
