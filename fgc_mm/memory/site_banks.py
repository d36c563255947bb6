"""The two banks of one coupled site."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fgc_mm.memory.bank import MemoryBank
from fgc_mm.memory.batch_write import write_rows


@dataclass(frozen=True)
class SiteBanks:
    """The two banks of one coupled site: one row per training image each.

    Attributes:
        feature: Pooled activations, the space where neighbours are sought.
        gate: Gate vectors, the space where they are drawn together.
    """

    feature: MemoryBank
    gate: MemoryBank

    def update(self, indices: Tensor, features: Tensor, gates: Tensor) -> None:
        """Write a batch to both banks, or to none.

        Args:
            indices: (N,) int64.
            features: (N, C).
            gates: (N, C).
        """
        self.check(indices, features, gates)
        device = self.feature.rows.device
        rows = indices.to(device, torch.int64)
        values = [features.to(device), gates.to(device)]
        write_rows([self.feature, self.gate], rows, values)

    def check(self, indices: Tensor, features: Tensor, gates: Tensor) -> None:
        """Raise what :meth:`update` would raise, and write nothing."""
        self.feature.check(indices, features)
        self.gate.check(indices, gates)

    def to(self, device: str | torch.device) -> None:
        """Move both banks."""
        self.feature.to(device)
        self.gate.to(device)

    def state_dict(self) -> dict[str, dict]:
        """State of both banks."""
        return dict(
            feature=self.feature.state_dict(), gate=self.gate.state_dict()
        )

    def load_state_dict(self, state: dict[str, dict]) -> None:
        """Restore both banks; raises FGCError for another size."""
        self.feature.load_state_dict(state['feature'])
        self.gate.load_state_dict(state['gate'])
