"""From a trained gated model to one that is faster on a clock."""

from fgc_mm.deploy.dynamic import to_dynamic
from fgc_mm.deploy.dynamic_plan import DynamicPlan

__all__ = ['DynamicPlan', 'to_dynamic']
