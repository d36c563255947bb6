"""The two banks of one coupled site."""

from typing import NamedTuple

from fgc_mm.memory.bank import MemoryBank


class SiteBanks(NamedTuple):
    """The two banks of one coupled site, with one row per training image.

    Attributes:
        feature: Pooled activations, the space of the neighbour search.
        gate: Gate vectors, the space of the contrastive loss.
    """

    feature: MemoryBank
    gate: MemoryBank
