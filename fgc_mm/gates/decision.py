"""What a gate says about one batch."""

from typing import NamedTuple

from torch import Tensor


class GateDecision(NamedTuple):
    """What a gate says about one batch.

    Attributes:
        logits: (N, C) linear output, float32; in evaluation a channel is
            open where it is above 0.
        probs: (N, C) probability, in [0, 1], that a channel is open.
        mask: (N, C) the factor of each channel; 0 is closed.
    """

    logits: Tensor
    probs: Tensor
    mask: Tensor
