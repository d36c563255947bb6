"""Outputs of a gate for one batch.

G is the number of decisions: the number of channels C, or fewer where one
decision opens several neighbouring channels.
"""

from typing import NamedTuple

from torch import Tensor


class GateDecision(NamedTuple):
    """Outputs of a gate for one batch.

    Attributes:
        logits: (N, G) float32; in evaluation a decision opens its channels
            where its logit is above 0, or above that of its threshold.
        probs: (N, G) probability, in [0, 1], that the channels are open.
        mask: (N, C) the factor of each channel; 0 is closed.
    """

    logits: Tensor
    probs: Tensor
    mask: Tensor


class ScalingDecision(NamedTuple):
    """Outputs of a gate that scales the channels it opens.

    Attributes:
        logits: As in :class:`GateDecision`.
        probs: As in :class:`GateDecision`.
        mask: (N, C) the saliency of open channels; 0 is closed.
        saliency: (N, G) at least 0, the scale of each decision's channels if
            they are open.
    """

    logits: Tensor
    probs: Tensor
    mask: Tensor
    saliency: Tensor
