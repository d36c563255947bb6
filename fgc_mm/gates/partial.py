"""A gate for some of a site's channels."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fgc_mm.gates.decision import GateDecision, ScalingDecision

CERTAIN = 20.0  # log-odds: a probability of 1, in float32
# what a closed and an open channel say: logits, probs, mask, and the saliency
# of a gate that scales
ENDS = ((-CERTAIN, CERTAIN), (0.0, 1.0), (0.0, 1.0), (0.0, 1.0))


class PartialGate(nn.Module):
    """A gate that decides for some channels; the others are fixed.

    What is left of a gate when firing statistics say that some channels are
    always open, or always closed.

    Args:
        gate: Decides for ``gated``, in their order; ``None`` if all is fixed.
        channels: Of the site (C).
        gated: Channels that the gate decides for.
        closed: Of the others, those that are closed.

    Shapes: as the gate's, with all C channels.
    """

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
        # where every channel lies behind the gate's own and the two constants
        source = torch.full((channels,), len(gated) + 1)
        source[list(closed)] = len(gated)
        source[list(gated)] = torch.arange(len(gated))
        self.register_buffer('_mask', mask, persistent=False)
        self.register_buffer('_source', source, persistent=False)

    @property
    def threshold(self) -> float | None:
        """Of the gate inside; ``None`` where all is fixed."""
        return getattr(self.gate, 'threshold', None)

    @threshold.setter
    def threshold(self, value: float) -> None:
        if self.gate is not None:
            self.gate.threshold = value

    def forward(self, x: Tensor) -> GateDecision | ScalingDecision:
        """Decide for every image of the batch."""
        if self.gate is None:
            mask = self._mask.expand(x.shape[0], -1)
            logits = CERTAIN * (2 * mask - 1)
            return GateDecision(logits, mask, mask)
        decision = self.gate(x)
        return type(decision)(*map(self._spread, decision, ENDS))

    def sources(self) -> Tensor:
        """(C,) where each channel lies behind the gate's own: the constant
        of a closed one, then that of an open one."""
        return self._source

    @staticmethod
    def certain() -> tuple[float, float]:
        """Logits of a closed and of an open channel."""
        return -CERTAIN, CERTAIN

    def _spread(self, own: Tensor, ends: tuple[float, float]) -> Tensor:
        fixed = own.new_tensor([ends]).expand(len(own), -1)
        return torch.cat([own, fixed], dim=1)[:, self._source]
