"""Dynamic channel pruning for mmpretrain: gates choose, image by image.

Importing the package registers every component in scope ``fgc_mm``; a config
does it with ``custom_imports = dict(imports=['fgc_mm'])``.
"""

import warnings

from fgc_mm._stack import check_stack

check_stack()  # before anything of OpenMMLab is imported
# mmcv-lite regrets its compiled operators at every start; none is needed
warnings.filterwarnings('ignore', message='Fail to import ``MultiScale')

# ruff: noqa: E402
from fgc_mm import datasets, engine, evaluation, gates, losses, models
from fgc_mm.errors import FGCError
from fgc_mm.version import __version__

__all__ = [
    'FGCError',
    '__version__',
    'datasets',
    'engine',
    'evaluation',
    'gates',
    'losses',
    'models',
]
