"""Deploying a trained model: smaller, portable, or faster."""

from fgc_mm import checked_stack  # noqa: F401  isort: skip

from fgc_mm.deploy.compaction.compact import Compacted, compact
from fgc_mm.deploy.dynamic.build import to_dynamic
from fgc_mm.deploy.dynamic.dynamic_plan import DynamicPlan
from fgc_mm.deploy.export.gathered import gathered
from fgc_mm.deploy.export.plain_forward import PlainForward
from fgc_mm.deploy.firing import (
    SiteFiring,
    firing_statistics,
    gated_backbone,
)
from fgc_mm.deploy.keep_ratio import set_keep_ratio
from fgc_mm.deploy.loading import build_model, build_trained, images_of

__all__ = [
    'Compacted',
    'DynamicPlan',
    'PlainForward',
    'SiteFiring',
    'build_model',
    'build_trained',
    'compact',
    'firing_statistics',
    'gated_backbone',
    'gathered',
    'images_of',
    'set_keep_ratio',
    'to_dynamic',
]
