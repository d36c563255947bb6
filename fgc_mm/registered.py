"""Importing this module registers every component in scope ``fgc_mm``.

The registries import it when MMEngine first looks something up in them.
"""

# the first import, since it names what is missing of OpenMMLab
from fgc_mm import checked_stack  # noqa: F401  isort: skip

import fgc_mm.datasets
import fgc_mm.engine
import fgc_mm.evaluation
import fgc_mm.gates
import fgc_mm.losses
import fgc_mm.models
import fgc_mm.reliability  # noqa: F401
