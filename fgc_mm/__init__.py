"""Dynamic channel pruning for mmpretrain: gates choose channels per image.

If MMEngine is already imported, importing the package registers every
component in scope ``fgc_mm``; a config does it with
``custom_imports = dict(imports=['fgc_mm'])``. Otherwise nothing is imported
before it is needed: ``fgc_mm.runtime`` works without torch and OpenMMLab.
"""

import sys
import warnings
from importlib import import_module
from typing import Any

from fgc_mm.config_files import config_file
from fgc_mm.errors import FGCError
from fgc_mm.model_zoo import register_models
from fgc_mm.version import __version__

__all__ = [
    'FGCError',
    '__version__',
    'config_file',
    'datasets',
    'engine',
    'evaluation',
    'gates',
    'losses',
    'models',
    'register_models',
    'reliability',
]
# mmcv-lite warns about its missing operators; none is needed
warnings.filterwarnings('ignore', message='Fail to import ``MultiScale')


def __getattr__(name: str) -> Any:
    if name in __all__:  # a package: the others are imported above
        import_module('fgc_mm.registered')
        return import_module(f'fgc_mm.{name}')
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if 'mmengine' in sys.modules:
    import_module('fgc_mm.registered')
