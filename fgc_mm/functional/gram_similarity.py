"""Comparing similarities of images in two spaces, within a batch."""

import torch
import torch.nn.functional as F
from torch import Tensor

from fgc_mm.errors import FGCError
from fgc_mm.functional.full_precision import full_precision


def gram_similarity(vectors: Tensor, features: Tensor) -> Tensor:
    """Squared distance of two Gram matrices, divided by N^2.

    ``||G(vectors) - G(features)||_F^2 / N^2``, where G has the cosines of
    all pairs of rows: coupling of gates and features without a memory bank.

    Args:
        vectors: (N, C) gate vectors.
        features: (N, C') pooled features of the same images.

    Returns:
        (), between 0 and 4; at least float32, also under autocast.

    Raises:
        FGCError: Not two matrices with the same number of rows.

    Source: ManiDP (CVPR 2021), Eq. 9 to 11.
    """
    shapes = f'{tuple(vectors.shape)} and {tuple(features.shape)}'
    if (
        vectors.dim() != 2
        or features.dim() != 2
        or (len(vectors) != len(features) or not len(vectors))
    ):
        raise FGCError(
            f'vectors and features have shapes {shapes}, but (N, C) and '
            "(N, C') with one row per image are needed: pool the features."
        )
    distance = _gram(vectors) - _gram(features)
    return distance.square().mean()


def _gram(rows: Tensor) -> Tensor:
    rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
    with full_precision(rows):
        rows = F.normalize(rows, dim=1, eps=1e-6)
        return rows @ rows.T
