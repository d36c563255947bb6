"""Evaluators."""

from fgc_mm.evaluation.dynamic_macs import DynamicMACs

__all__ = ['DynamicMACs']
