"""Trains and tests several methods and writes one table (fgc-mm compare)."""

from fgc_mm import checked_stack  # noqa: F401  isort: skip
