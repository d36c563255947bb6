"""FTWT's targets: the channels of a layer with the largest activations."""

import torch
from torch import Tensor

from fgc_mm.errors import FGCError
from fgc_mm.functional.number import is_number
from fgc_mm.functional.pooling import global_max_pool

TINY = 1e-5
_WHOLE = 2**52  # integer mass of an image, with float64's resolution


def mass_mask(activation: Tensor, ratio: float) -> Tensor:
    """The largest channels that hold a fraction of the activation's mass.

    A channel's score is the largest magnitude in its map. Scores are
    normalised to a sum of 1 and sorted in descending order; a channel is
    dropped if the cumulative sum including it exceeds ``ratio`` (by more than
    1e-5), so the channel at which the sum reaches ``ratio`` is dropped, too.
    At least one channel is kept, and all are if every score is 0.

    Args:
        activation: (N, C, ...) a layer's output, before any mask.
        ratio: Fraction of the mass (r), in (0, 1]; 1 drops only scores of at
            most 1e-5, a negative number drops nothing.

    Returns:
        (N, C) float32, 1 for the channels to keep; without gradient.

    Raises:
        FGCError: A ratio of 0, which leaves no channel, or above 1.

    Source: FTWT (arXiv 2110.08232), section 3.2.
    """
    sound = is_number(ratio) and ratio != 0 and ratio <= 1
    _check(ratio, 'mass', sound, 'above 0 and up to 1')
    scores = channel_scores(activation).double()
    if ratio < 0:
        return torch.ones_like(scores, dtype=torch.float32)
    total = scores.sum(dim=1, keepdim=True)
    share = scores / total.clamp(min=torch.finfo(scores.dtype).tiny)
    if ratio == 1:
        keep = share > TINY
    else:
        ordered, order = share.sort(dim=1, descending=True, stable=True)
        # integers: a cumulative sum of floats is not deterministic on CUDA,
        # and raises an error with deterministic algorithms
        mass = (ordered * _WHOLE).round().long().cumsum(dim=1)
        kept = mass <= round((ratio + TINY) * _WHOLE)
        kept[:, 0] = True
        keep = torch.zeros_like(kept).scatter(1, order, kept)
    return (keep | (total == 0)).float()


def uniform_mask(activation: Tensor, ratio: float) -> Tensor:
    """The same number of channels for every image.

    Drops the ``int(ratio * C)`` channels with the lowest scores, and any
    with a score of at most 1e-5; at least one is kept, and all if every
    score is 0.

    Args:
        activation: As in :func:`mass_mask`.
        ratio: Fraction of the channels to drop (r), in [0, 1).

    Returns:
        (N, C) float32, 1 for the channels to keep; without gradient.

    Raises:
        FGCError: A ratio of 1 or more, which leaves no channel, or below 0.

    Source: FTWT (arXiv 2110.08232), section 4.3.
    """
    sound = is_number(ratio) and 0 <= ratio < 1
    _check(ratio, 'uniform', sound, 'at least 0 and below 1')
    scores = channel_scores(activation)
    order = scores.argsort(dim=1, descending=True, stable=True)
    keep = scores > TINY
    channels = scores.shape[1]
    lowest = order[:, channels - int(ratio * channels) :]
    keep = keep.scatter(1, lowest, False)
    keep = keep.scatter(1, order[:, :1], True)
    return (keep | (scores == 0).all(dim=1, keepdim=True)).float()


def channel_scores(activation: Tensor) -> Tensor:
    """The largest magnitude in each channel's map; (N, C), no gradient."""
    return global_max_pool(activation.detach().abs())


def _check(ratio: float, kind: str, sound: bool, rule: str) -> None:
    if not sound:
        raise FGCError(
            f'ratio={ratio!r} of the {kind} target leaves no channel, or is '
            f'not a fraction; give a number {rule}.'
        )
