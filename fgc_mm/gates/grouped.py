"""A gate whose decisions open several neighbouring channels each."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from fgc_mm.functional.channel_groups import spread_groups
from fgc_mm.gates.decision import GateDecision, ScalingDecision


class GroupedGate(nn.Module):
    """Turns the decisions of a gate into a mask of channels.

    The one place where a decision becomes the mask of several channels:
    the gate inside has one output per decision and knows nothing of groups.
    Built by :func:`fgc_mm.gates.build_gate`, for ``gate=dict(..., group=8)``.

    Args:
        gate: Any gate of G outputs.
        sizes: (G,) channels that each decision opens, neighbours in the
            order of the channels.

    Shapes: the gate's, (N, G), but for the mask, which is (N, C) with C the
    sum of the sizes.
    """

    def __init__(self, gate: nn.Module, sizes: Sequence[int]) -> None:
        super().__init__()
        self.gate = gate
        self.sizes = tuple(sizes)

    @property
    def threshold(self) -> Any:
        """Of the gate inside; ``None`` where it has none."""
        return getattr(self.gate, 'threshold', None)

    @threshold.setter
    def threshold(self, value: float) -> None:
        self.gate.threshold = value

    def forward(self, x: Tensor) -> GateDecision | ScalingDecision:
        """Decide for every image of the batch."""
        decision = self.gate(x)
        mask = spread_groups(decision.mask, self.sizes)
        return decision._replace(mask=mask)

    def extra_repr(self) -> str:
        """The channels of each decision."""
        return f'sizes={self.sizes}'
