"""From a trained model to one that is smaller, portable, and faster."""

from fgc_mm.deploy.compact import Compacted, compact
from fgc_mm.deploy.firing import (
    SiteFiring,
    firing_statistics,
    gated_backbone,
)
from fgc_mm.deploy.keep_ratio import set_keep_ratio
from fgc_mm.deploy.loading import build_trained, images_of

__all__ = [
    'Compacted',
    'SiteFiring',
    'build_trained',
    'compact',
    'firing_statistics',
    'gated_backbone',
    'images_of',
    'set_keep_ratio',
]
