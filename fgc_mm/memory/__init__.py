"""Memory banks, with one row per training image."""

from fgc_mm.memory.bank import MemoryBank
from fgc_mm.memory.batch_write import BatchWrite
from fgc_mm.memory.epoch_mean import EpochMean
from fgc_mm.memory.shard import Shard
from fgc_mm.memory.sharded_contrast import sharded_neighbor_contrast
from fgc_mm.memory.sharded_neighbors import sharded_nearest_neighbors
from fgc_mm.memory.site_banks import SiteBanks

__all__ = [
    'BatchWrite',
    'EpochMean',
    'MemoryBank',
    'Shard',
    'SiteBanks',
    'sharded_nearest_neighbors',
    'sharded_neighbor_contrast',
]
