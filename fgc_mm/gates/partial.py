"""A gate with some fixed channels."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fgc_mm.gates.decision import GateDecision, ScalingDecision

FIXED_LOGIT = 20.0  # log-odds whose probability is 1 in float32
# logits, probs, mask and saliency (of a gate that scales) of a closed and an
# open channel
FIXED_VALUES = (
    (-FIXED_LOGIT, FIXED_LOGIT),
    (0.0, 1.0),
    (0.0, 1.0),
    (0.0, 1.0),
)


class PartialGate(nn.Module):
    """A gate that decides for some channels; the others are fixed.

    Used after compaction, when some channels are always open or closed.

    Args:
        gate: Decides for ``gated``, in this order; ``None`` if all channels
            are fixed.
        channels: Of the site (C).
        gated: Channels that the gate decides for.
        closed: Other channels that are always closed; the rest is open.

    Shapes: those of the gate, with all C channels.
    """

    gate: Any  # nn.Module does not know the attribute threshold
    _mask: Tensor
    _output_index: Tensor

    def __init__(
        self,
        gate: nn.Module | None,
        channels: int,
        gated: Sequence[int],
        closed: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.gate = gate
        mask = torch.ones(1, channels)
        mask[0, list(closed)] = 0
        # index of every channel in [gate's outputs, closed, open]
        source = torch.full((channels,), len(gated) + 1)
        source[list(closed)] = len(gated)
        source[list(gated)] = torch.arange(len(gated))
        self.register_buffer('_mask', mask, persistent=False)
        self.register_buffer('_output_index', source, persistent=False)

    @property
    def threshold(self) -> float | None:
        """Threshold of the inner gate; ``None`` if all is fixed."""
        return getattr(self.gate, 'threshold', None)

    @threshold.setter
    def threshold(self, value: float) -> None:
        if self.gate is not None:
            self.gate.threshold = value

    def forward(self, x: Tensor) -> GateDecision | ScalingDecision:
        """Decide for every image of the batch."""
        if self.gate is None:
            mask = self._mask.expand(x.shape[0], -1)
            logits = FIXED_LOGIT * (2 * mask - 1)
            return GateDecision(logits, mask, mask)
        decision = self.gate(x)
        return type(decision)(*map(self._spread, decision, FIXED_VALUES))

    def output_index(self) -> Tensor:
        """(C,) index of each channel in the gate's outputs, followed by the
        constants of a closed and of an open channel."""
        return self._output_index

    @staticmethod
    def fixed_logits() -> tuple[float, float]:
        """Logits of a closed and of an open channel."""
        return -FIXED_LOGIT, FIXED_LOGIT

    def _spread(
        self, outputs: Tensor, fixed_values: tuple[float, float]
    ) -> Tensor:
        fixed = outputs.new_tensor([fixed_values]).expand(len(outputs), -1)
        return torch.cat([outputs, fixed], dim=1)[:, self._output_index]
