"""Checks what is installed; imported before any package of OpenMMLab."""

from fgc_mm._stack import check_stack
from fgc_mm.yapf_import import import_yapf

check_stack()
import_yapf()
