"""Figures of the measurements, in the style of the package."""

from .cost import (
    draw_calibration,
    draw_error_by_macs,
    draw_macs_of_answers,
    draw_macs_of_classes,
)
from .exchange import draw_exchanged_masks
from .maps import draw_embeddings, draw_frequency
from .per_site import draw_channels, draw_clusters, draw_neighbors
from .pictures import draw_extremes, draw_retrieval

__all__ = [
    'draw_calibration',
    'draw_channels',
    'draw_clusters',
    'draw_embeddings',
    'draw_error_by_macs',
    'draw_exchanged_masks',
    'draw_extremes',
    'draw_frequency',
    'draw_macs_of_answers',
    'draw_macs_of_classes',
    'draw_neighbors',
    'draw_retrieval',
]
