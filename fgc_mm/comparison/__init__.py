"""Many runs, one table: what fgc-mm compare is made of."""

from fgc_mm import checked_stack  # noqa: F401  isort: skip
