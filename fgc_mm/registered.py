"""Importing this module registers every component in scope ``fgc_mm``.

The registries import it at MMEngine's first look-up.
"""

# first, since it raises the error for a missing part of OpenMMLab
from fgc_mm import checked_stack  # noqa: F401  isort: skip

import fgc_mm.datasets
import fgc_mm.engine
import fgc_mm.evaluation
import fgc_mm.gates
import fgc_mm.losses
import fgc_mm.models
import fgc_mm.reliability  # noqa: F401
