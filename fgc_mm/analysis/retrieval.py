"""Gate vectors, and retrieval of images with near gate vectors."""

from collections import defaultdict
from itertools import count

import numpy as np

from .measurement import Retrieval
from .options import AnalysisOptions, draw_indices
from .statistics import nearest_images, unit_rows
from .stored_pass import StoredPass

TINY = np.finfo(np.float32).tiny


def gate_vectors(
    stored: StoredPass, site: str, options: AnalysisOptions
) -> np.ndarray:
    """The gate vectors of a site, (N, C) float32."""
    vectors = stored.site_array(options.gate_vector, site)
    return np.asarray(vectors, np.float32)


def retrieve(
    stored: StoredPass, sites: tuple[str, ...], options: AnalysisOptions
) -> Retrieval:
    """For query images, those with the nearest gate vectors of all sites."""
    # normalised, so that every site has the same weight
    some = draw_indices(len(stored), options.most_images, options.seed)
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
    cosine = np.einsum('qc,qrc->qr', rows[queries], rows[found])
    cosine /= np.maximum(lengths[queries][:, None] * lengths[found], TINY)
    return Retrieval(some[queries], some[found], cosine)


def query_images(labels: np.ndarray, number: int, seed: int) -> np.ndarray:
    """Query images, (Q,); of different classes, while there are any."""
    order = np.random.default_rng(seed).permutation(len(labels))
    counters: dict[int, count] = defaultdict(count)
    # number of earlier images of the class
    turn = [next(counters[label]) for label in labels[order].tolist()]
    first = order[np.argsort(turn, kind='stable')][:number]
    return first[np.argsort(labels[first], kind='stable')]
