"""Gate vectors, and the images whose gates are nearest to a query's."""

from __future__ import annotations

import numpy as np

from .measurement import Retrieval
from .options import AnalysisOptions, drawn
from .statistics import nearest_images, unit_rows
from .stored_pass import StoredPass

TINY = np.finfo(np.float32).tiny


def gate_vectors(
    stored: StoredPass, site: str, options: AnalysisOptions
) -> np.ndarray:
    """(N, C) float32: what stands for the gate in gate space."""
    return np.asarray(stored.space(options.gate_vector, site), np.float32)


def retrieve(
    stored: StoredPass, sites: tuple[str, ...], options: AnalysisOptions
) -> Retrieval:
    """For query images, those with the nearest gates of all given sites.

    Args:
        stored: The pass.
        sites: Whose gates count.
        options: How many queries and images, the seed.
    """
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
