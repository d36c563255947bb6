"""Embeddings of vectors in two dimensions: UMAP, t-SNE, PCA. (Figs. 6, 7)"""

import importlib.metadata
import warnings

import numpy as np
from scipy.linalg import orthogonal_procrustes
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from ...errors import FGCError, check_choice

METHODS = {'umap': 'UMAP', 'tsne': 't-SNE', 'pca': 'PCA'}
MIN_VECTORS = 10  # distinct ones; with fewer, PCA is used
INIT_DEVIATION = 1e-4  # initial standard deviation of t-SNE (its authors')
ITERATIONS = 500  # of t-SNE, half of them with early exaggeration


def choose_method(wanted: str = 'auto') -> str:
    """``'umap'``, ``'tsne'`` or ``'pca'``.

    Args:
        wanted: One of them, or ``'auto'``: UMAP where umap-learn is
            installed, else t-SNE.

    Raises:
        FGCError: UMAP is not installed, or the method is unknown.
    """
    check_choice(f'embedding {wanted!r}', wanted, ('auto', *METHODS))
    installed = any(importlib.metadata.distributions(name='umap-learn'))
    if wanted == 'auto':
        return 'umap' if installed else 'tsne'
    if wanted == 'umap' and not installed:
        raise FGCError(
            'embedding umap needs umap-learn, which is not installed; run '
            'pip install umap-learn, or choose tsne or pca.'
        )
    return wanted


def embed(
    vectors: np.ndarray,
    method: str,
    seed: int = 0,
    start: np.ndarray | None = None,
) -> tuple[np.ndarray, str]:
    """Embed vectors in two dimensions.

    Equal seeds give equal points on the same machine and versions.

    Args:
        vectors: (N, C).
        method: As returned by :func:`choose_method`.
        seed: Seed of UMAP and t-SNE.
        start: (N, 2) initial points, such as those of an earlier checkpoint;
            the new points are aligned to them by a rotation or reflection, so
            that two embeddings can be compared. They are not used if all are
            on a line or equal (gates with equal outputs for all images).

    Returns:
        (N, 2) points, and the name of the method: always PCA for fewer
        than ten different vectors.
    """
    vectors = np.asarray(vectors, dtype=np.float64)
    if len(np.unique(vectors, axis=0)) < MIN_VECTORS:
        method = 'pca'
    # t-SNE cannot leave the point or the line that it starts on
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
        points = _aligned(points, start)
    return points, METHODS[method]


def _umap(vectors: np.ndarray, seed: int, start: np.ndarray) -> np.ndarray:
    import umap  # takes seconds; an optional dependency

    deviation = np.maximum(start.std(axis=0), 1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # warns that a seed means one thread
        return umap.UMAP(
            n_neighbors=min(15, len(vectors) - 1),
            random_state=seed,
            init=((start - start.mean(axis=0)) / deviation).astype(np.float32),
        ).fit_transform(vectors)


def _tsne(vectors: np.ndarray, seed: int, start: np.ndarray) -> np.ndarray:
    deviation = max(float(start[:, 0].std()), 1e-12)
    centred = start - start.mean(axis=0)
    return TSNE(
        perplexity=min(30.0, (len(vectors) - 1) / 3),
        random_state=seed,
        init=(centred / deviation * INIT_DEVIATION).astype('float32'),
        learning_rate='auto',
        max_iter=ITERATIONS,
        n_jobs=1,
    ).fit_transform(vectors)


def _aligned(points: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Rotate or reflect the points, since t-SNE can flip an embedding."""
    centred = points - points.mean(axis=0)
    rotation, _ = orthogonal_procrustes(centred, start - start.mean(axis=0))
    return centred @ rotation


def _pca(vectors: np.ndarray) -> np.ndarray:
    """The first two principal components; zeros where there are fewer."""
    points = np.zeros((len(vectors), 2))
    count = min(2, *vectors.shape)
    deviation = float(vectors.std(axis=0).max(initial=0.0))
    if deviation > 0:
        pca = PCA(count, svd_solver='full')
        points[:, :count] = pca.fit_transform(vectors)
    return points
