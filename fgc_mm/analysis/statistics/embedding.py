"""Vectors as points of a plane, near ones near each other. (Figs. 6, 7)"""

from __future__ import annotations

import importlib.util
import warnings

import numpy as np
from scipy.linalg import orthogonal_procrustes
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from ...errors import FGCError

METHODS = {'umap': 'UMAP', 'tsne': 't-SNE', 'pca': 'PCA'}
FEWEST = 10  # images for which neighbourhoods mean something
START = 1e-4  # spread at which t-SNE starts (its authors' choice)
ITERATIONS = 500  # of t-SNE, half of them exaggerated


def choose_method(wanted: str = 'auto') -> str:
    """``'umap'``, ``'tsne'`` or ``'pca'``.

    Args:
        wanted: One of them, or ``'auto'``: UMAP where umap-learn is
            installed, else t-SNE.

    Raises:
        FGCError: UMAP is wanted and not installed, or an unknown method.
    """
    installed = importlib.util.find_spec('umap') is not None
    if wanted == 'auto':
        return 'umap' if installed else 'tsne'
    if wanted not in METHODS:
        raise FGCError(
            f'embedding {wanted!r} is unknown; choose among auto, '
            f'{", ".join(METHODS)}.'
        )
    if wanted == 'umap' and not installed:
        raise FGCError(
            'embedding umap needs umap-learn, which is not installed; run '
            "pip install 'fgc_mm[analysis]', or choose tsne or pca."
        )
    return wanted


def embed(
    vectors: np.ndarray,
    method: str,
    seed: int = 0,
    start: np.ndarray | None = None,
) -> tuple[np.ndarray, str]:
    """Points of a plane for vectors.

    Equal seeds give equal points on the same machine and versions.

    Args:
        vectors: (N, C).
        method: Of :func:`choose_method`.
        seed: Of what is random in UMAP and t-SNE.
        start: (N, 2) points to start from, as of an earlier checkpoint; the
            new points are also turned, or mirrored, towards these, so that
            two maps can be compared. Points on a line or in one point, as of
            gates that did the same for all images, are no start.

    Returns:
        (N, 2) points, and the name of the method: PCA for fewer than ten
        different vectors, whatever was asked for.
    """
    vectors = np.asarray(vectors, dtype=np.float64)
    if len(np.unique(vectors, axis=0)) < FEWEST:
        method = 'pca'
    # nothing moves t-SNE out of the point, or the line, that it starts on
    spread = start is not None and start.std(axis=0).all()
    begin = start if start is not None and spread else _pca(vectors)
    with threadpool_limits(1):
        if method == 'umap':
            points = _umap(vectors, seed, begin)
        elif method == 'tsne':
            points = _tsne(vectors, seed, begin)
        else:
            points = _pca(vectors)
    if start is not None:
        points = _turned_towards(points, start)
    return points, METHODS[method]


def _umap(vectors: np.ndarray, seed: int, start: np.ndarray) -> np.ndarray:
    import umap  # seconds, and an extra

    spread = np.maximum(start.std(axis=0), 1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # a seed means one thread
        return umap.UMAP(
            n_neighbors=min(15, len(vectors) - 1),
            random_state=seed,
            init=((start - start.mean(axis=0)) / spread).astype(np.float32),
        ).fit_transform(vectors)


def _tsne(vectors: np.ndarray, seed: int, start: np.ndarray) -> np.ndarray:
    spread = max(float(start[:, 0].std()), 1e-12)
    return TSNE(
        perplexity=min(30.0, (len(vectors) - 1) / 3),
        random_state=seed,
        init=((start - start.mean(axis=0)) / spread * START).astype('float32'),
        learning_rate='auto',
        max_iter=ITERATIONS,
        n_jobs=1,
    ).fit_transform(vectors)


def _turned_towards(points: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Turned or mirrored: t-SNE's first steps can flip a whole map."""
    centred = points - points.mean(axis=0)
    turn, _ = orthogonal_procrustes(centred, start - start.mean(axis=0))
    return centred @ turn


def _pca(vectors: np.ndarray) -> np.ndarray:
    """The first two principal components; zeros where there are fewer."""
    points = np.zeros((len(vectors), 2))
    count = min(2, *vectors.shape)
    spread = float(vectors.std(axis=0).max(initial=0.0))
    if spread > 0:
        pca = PCA(count, svd_solver='full')
        points[:, :count] = pca.fit_transform(vectors)
    return points
