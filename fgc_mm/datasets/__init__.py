"""Data sets that need no download."""

from fgc_mm.datasets.digits import Digits

__all__ = ['Digits']
