"""A gate whose decisions each open several neighbouring channels."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from fgc_mm.functional.channel_groups import spread_groups
from fgc_mm.gates.decision import GateDecision, ScalingDecision


class WrappedGate(nn.Module):
    """A module that wraps a gate, or ``None``, and has its threshold."""

    gate: Any  # for type checks: nn.Module has no attribute threshold

    def __init__(self, gate: nn.Module | None) -> None:
        super().__init__()
        self.gate = gate

    @property
    def threshold(self) -> Any:
        """Threshold of the inner gate; ``None`` if it has none."""
        return getattr(self.gate, 'threshold', None)

    @threshold.setter
    def threshold(self, value: float) -> None:
        if self.gate is not None:
            self.gate.threshold = value


class GroupedGate(WrappedGate):
    """Expands the decisions of a gate to a mask of channels.

    The inner gate has one output per decision and does not depend on the
    grouping. Built by :func:`fgc_mm.gates.build_gate`, for ``gate=dict(...,
    group=8)``.

    Args:
        gate: Any gate with G outputs.
        sizes: (G,) number of neighbouring channels that each decision opens.

    Shapes: those of the gate, (N, G), except the mask, which is (N, C) with
    C the sum of the sizes.
    """

    def __init__(self, gate: nn.Module, sizes: Sequence[int]) -> None:
        super().__init__(gate)
        self.sizes = tuple(sizes)

    def forward(self, x: Tensor) -> GateDecision | ScalingDecision:
        """Decide for every image of the batch."""
        decision = self.gate(x)
        mask = spread_groups(decision.mask, self.sizes)
        # torch.compile cannot trace _replace
        return type(decision)(*decision[:2], mask, *decision[3:])

    def extra_repr(self) -> str:
        """The number of channels of each decision."""
        return f'sizes={self.sizes}'
