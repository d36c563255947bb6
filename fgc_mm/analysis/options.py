"""The options of an analysis."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np

from ..errors import FGCError, check_choice
from .stored_pass import StoredPass

GATE_VECTORS = 'logits', 'probs', 'mask'
MAX_NEIGHBORS = 200  # K of the paper
NEIGHBOR_FRACTION = 0.02
POSITIVE = (
    'bins', 'most_images', 'embedded_images', 'queries', 'retrieved',
    'extremes', 'shown_sites',
)  # fmt: skip


@dataclass(frozen=True)
class AnalysisOptions:
    """The options of an analysis.

    Attributes:
        sites: Names or shell patterns of the sites; all by default.
        gate_vector: The gate vector of an image: ``'logits'`` (used by the
            coupling loss), ``'probs'`` or ``'mask'``.
        clusters: Number of clusters of K-means; by default that of classes.
        neighbors: K; by default a fiftieth of the images, at most 200.
        bins: Number of quantiles of the MACs.
        most_images: Maximum number of images for clusters and for queries
            of neighbours, drawn with the seed.
        embedding: ``'auto'``, ``'umap'``, ``'tsne'`` or ``'pca'``.
        embedded_images: Maximum number of points in an embedding.
        queries: Number of query images of the retrieval.
        retrieved: Number of images retrieved for each query.
        extremes: Number of cheapest and most expensive images to show.
        shown_sites: Number of sites in embeddings and heat maps; the last
            ones are shown.
        seed: Seed of all random draws.

    Raises:
        FGCError: An option is out of its range.
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
                    f'{name}={getattr(self, name)} of the analysis is not a '
                    'positive number; give one.'
                )
        if not 0 <= self.seed < 2**32:
            raise FGCError(
                f'--seed {self.seed} is outside 0 to 4294967295, the range '
                'of seeds of numpy; give another.'
            )
        check_choice(
            f'gate vector {self.gate_vector!r}', self.gate_vector, GATE_VECTORS
        )


def chosen_sites(
    known: Sequence[str], wanted: Sequence[str]
) -> tuple[str, ...]:
    """The sites that match the patterns, in the order of the network.

    Raises:
        FGCError: A pattern matches no site.
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
    """Number of clusters: the option, or the number of classes."""
    if options.clusters is not None:
        return options.clusters
    return len(np.unique(stored.labels))


def neighbor_count(stored: StoredPass, options: AnalysisOptions) -> int:
    """Number of neighbours (K): the option, or a fraction of the images."""
    if options.neighbors is not None:
        return options.neighbors
    fraction = round(len(stored) * NEIGHBOR_FRACTION)
    return min(max(fraction, 1), MAX_NEIGHBORS)


def draw_indices(total: int, most: int, seed: int) -> np.ndarray:
    """At most ``most`` random indices below ``total``, ascending."""
    if total <= most:
        return np.arange(total)
    generator = np.random.default_rng(seed)
    return np.sort(generator.choice(total, most, replace=False))
