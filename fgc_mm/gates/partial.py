"""A gate with some fixed channels."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fgc_mm.gates.decision import GateDecision, ScalingDecision
from fgc_mm.gates.grouped import WrappedGate

# for a closed and an open channel; their sigmoids are 0 and 1 up to 2e-9
FIXED_LOGITS = -20.0, 20.0
# logits, probs, mask and saliency (of a gate that scales)
FIXED_VALUES = FIXED_LOGITS, (0.0, 1.0), (0.0, 1.0), (0.0, 1.0)


class PartialGate(WrappedGate):
    """A gate that decides for some channels; the others are fixed.

    Used after compaction, when some channels are always open or closed.

    Args:
        gate: Has one output per channel of ``gated``, in this order; ``None``
            if all channels are fixed.
        channels: Number of channels of the site (C).
        gated: Channels that the gate decides for.
        closed: Other channels that are always closed; the rest is open.

    Shapes: those of the gate, with all C channels.

    Attributes:
        output_index: (C,) index of each channel in the gate's outputs, to
            which the values of a closed and of an open channel are appended.
    """

    _mask: Tensor
    _fixed: Tensor
    output_index: Tensor

    def __init__(
        self,
        gate: nn.Module | None,
        channels: int,
        gated: Sequence[int],
        closed: Sequence[int] = (),
    ) -> None:
        super().__init__(gate)
        mask = torch.ones(1, channels)
        mask[0, list(closed)] = 0
        source = torch.full((channels,), len(gated) + 1)
        source[list(closed)] = len(gated)
        source[list(gated)] = torch.arange(len(gated))
        self.register_buffer('_mask', mask, persistent=False)
        self.register_buffer('output_index', source, persistent=False)
        fixed = torch.tensor(FIXED_VALUES)
        self.register_buffer('_fixed', fixed, persistent=False)

    def forward(self, x: Tensor) -> GateDecision | ScalingDecision:
        """Decide for every image of the batch."""
        if self.gate is None:
            mask = self._mask.expand(x.shape[0], -1)
            logits = FIXED_LOGITS[1] * (2 * mask - 1)
            return GateDecision(logits, mask, mask)
        decision = self.gate(x)
        fixed = self._fixed.unbind()
        return type(decision)(*map(self._spread, decision, fixed))

    def _spread(self, outputs: Tensor, fixed: Tensor) -> Tensor:
        fixed = fixed.to(outputs.dtype).expand(len(outputs), -1)
        return torch.cat([outputs, fixed], dim=1)[:, self.output_index]
