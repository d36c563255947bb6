"""From a trained model to one that is smaller, portable, and faster."""

from fgc_mm.deploy.compact import Compacted, compact
from fgc_mm.deploy.firing import SiteFiring, firing_statistics
from fgc_mm.deploy.loading import build_trained, images_of

__all__ = [
    'Compacted',
    'SiteFiring',
    'build_trained',
    'compact',
    'firing_statistics',
    'images_of',
]
