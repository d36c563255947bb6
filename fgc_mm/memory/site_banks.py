"""The two banks of one coupled site."""

from dataclasses import dataclass

import torch

from fgc_mm.memory.bank import MemoryBank


@dataclass(frozen=True)
class SiteBanks:
    """The two banks of one coupled site, with one row per training image.

    Attributes:
        feature: Pooled activations, the space of the neighbour search.
        gate: Gate vectors, the space of the contrastive loss.
    """

    feature: MemoryBank
    gate: MemoryBank

    def to(self, device: str | torch.device) -> None:
        """Move both banks."""
        self.feature.to(device)
        self.gate.to(device)

    def load_state_dict(self, state: dict[str, dict]) -> None:
        """Restore both banks; raises FGCError for another size."""
        self.feature.load_state_dict(state['feature'])
        self.gate.load_state_dict(state['gate'])
