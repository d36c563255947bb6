"""Evaluators."""

from fgc_mm import checked_stack  # noqa: F401  isort: skip

from fgc_mm.evaluation.dynamic_macs import DynamicMACs

__all__ = ['DynamicMACs']
