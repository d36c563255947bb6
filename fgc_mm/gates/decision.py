"""What a gate says about one batch."""

from typing import NamedTuple

from torch import Tensor


class GateDecision(NamedTuple):
    """What a gate says about one batch.

    Attributes:
        logits: (N, C) float32; in evaluation a channel is open where it is
            above 0.
        probs: (N, C) probability, in [0, 1], that a channel is open.
        mask: (N, C) the factor of each channel; 0 is closed.
    """

    logits: Tensor
    probs: Tensor
    mask: Tensor


class ScalingDecision(NamedTuple):
    """What a gate says that scales the channels it opens.

    Attributes:
        logits: As in :class:`GateDecision`.
        probs: As in :class:`GateDecision`.
        mask: (N, C) the saliency of open channels; 0 is closed.
        saliency: (N, C) at least 0, what each channel is scaled with if it
            is open.
    """

    logits: Tensor
    probs: Tensor
    mask: Tensor
    saliency: Tensor
