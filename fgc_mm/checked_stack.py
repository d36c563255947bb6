"""Checks what is installed; imported before any package of OpenMMLab."""

from fgc_mm._stack import check_stack

check_stack()
