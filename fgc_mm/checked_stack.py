"""Imported before anything of OpenMMLab: checks what is installed."""

from fgc_mm._stack import check_stack

check_stack()
