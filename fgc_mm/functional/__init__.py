"""Mathematical functions: torch only, no state, no collectives."""

from fgc_mm.functional.agreement import neighborhood_agreement
from fgc_mm.functional.bank_logsumexp import bank_logsumexp
from fgc_mm.functional.batch_shaping import batch_shaping
from fgc_mm.functional.binary_concrete import binary_concrete
from fgc_mm.functional.channel_mask import mask_channels, spread_mask
from fgc_mm.functional.contrast import neighbor_contrast
from fgc_mm.functional.fingerprint import fingerprint
from fgc_mm.functional.gram_similarity import gram_similarity
from fgc_mm.functional.macs import (
    LayerMACs,
    MACsTable,
    expected_macs,
    macs_per_image,
)
from fgc_mm.functional.mask_targets import mass_mask, uniform_mask
from fgc_mm.functional.neighbors import (
    nearest_neighbors,
    nearest_neighbors_of_each,
)
from fgc_mm.functional.on_device import copied_to, on_device
from fgc_mm.functional.pooling import global_average_pool

__all__ = [
    'LayerMACs',
    'MACsTable',
    'bank_logsumexp',
    'batch_shaping',
    'binary_concrete',
    'copied_to',
    'expected_macs',
    'fingerprint',
    'global_average_pool',
    'gram_similarity',
    'macs_per_image',
    'mask_channels',
    'mass_mask',
    'nearest_neighbors',
    'nearest_neighbors_of_each',
    'neighbor_contrast',
    'neighborhood_agreement',
    'on_device',
    'spread_mask',
    'uniform_mask',
]
