"""Many runs, one table: what tools/compare.py is made of."""

from fgc_mm import checked_stack  # noqa: F401  isort: skip
