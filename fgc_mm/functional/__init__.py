"""The mathematics: torch only, no state."""

from fgc_mm.functional.bank_logsumexp import bank_logsumexp
from fgc_mm.functional.batch_shaping import batch_shaping
from fgc_mm.functional.binary_concrete import binary_concrete
from fgc_mm.functional.contrast import neighbor_contrast
from fgc_mm.functional.neighbors import (
    nearest_neighbors,
    neighborhood_agreement,
)

__all__ = [
    'bank_logsumexp',
    'batch_shaping',
    'binary_concrete',
    'nearest_neighbors',
    'neighbor_contrast',
    'neighborhood_agreement',
]
