"""Statistics of stored passes; functions of arrays."""

from .calibration import Calibration, ConfidenceBin, calibration
from .clusters import ClusterAgreement, cluster, cluster_agreement
from .cost import MACsBin, Rank, extremes, macs_bins, rank_correlation
from .embedding import METHODS, choose_method, embed
from .frequency import ChannelUse, channel_use, execution_frequency
from .neighborhoods import (
    NeighborAgreement,
    nearest_images,
    neighbor_agreement,
    unit_rows,
)

__all__ = [
    'METHODS',
    'Calibration',
    'ChannelUse',
    'ClusterAgreement',
    'ConfidenceBin',
    'MACsBin',
    'NeighborAgreement',
    'Rank',
    'calibration',
    'channel_use',
    'choose_method',
    'cluster',
    'cluster_agreement',
    'embed',
    'execution_frequency',
    'extremes',
    'macs_bins',
    'nearest_images',
    'neighbor_agreement',
    'rank_correlation',
    'unit_rows',
]
