"""Child registries of MMEngine's roots, scope ``fgc_mm``.

A config names our components ``type='fgc_mm.X'`` and keeps
``default_scope='mmpretrain'``, so that everything else stays as upstream.
"""

from fgc_mm import checked_stack  # noqa: F401  isort: skip

from mmengine.registry import DATASETS as ROOT_DATASETS
from mmengine.registry import HOOKS as ROOT_HOOKS
from mmengine.registry import METRICS as ROOT_METRICS
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import (
    OPTIM_WRAPPER_CONSTRUCTORS as ROOT_OPTIM_WRAPPER_CONSTRUCTORS,
)
from mmengine.registry import OPTIM_WRAPPERS as ROOT_OPTIM_WRAPPERS
from mmengine.registry import TRANSFORMS as ROOT_TRANSFORMS
from mmengine.registry import WEIGHT_INITIALIZERS as ROOT_INITIALIZERS
from mmengine.registry import Registry

SCOPE = 'fgc_mm'
# imported when something is first looked up
LOCATIONS = ['fgc_mm.registered']

MODELS = Registry(
    'model', parent=ROOT_MODELS, scope=SCOPE, locations=LOCATIONS
)
HOOKS = Registry('hook', parent=ROOT_HOOKS, scope=SCOPE, locations=LOCATIONS)
METRICS = Registry(
    'metric', parent=ROOT_METRICS, scope=SCOPE, locations=LOCATIONS
)
OPTIM_WRAPPERS = Registry(
    'optim_wrapper',
    parent=ROOT_OPTIM_WRAPPERS,
    scope=SCOPE,
    locations=LOCATIONS,
)
OPTIM_WRAPPER_CONSTRUCTORS = Registry(
    'optimizer wrapper constructor',
    parent=ROOT_OPTIM_WRAPPER_CONSTRUCTORS,
    scope=SCOPE,
    locations=LOCATIONS,
)
DATASETS = Registry(
    'dataset', parent=ROOT_DATASETS, scope=SCOPE, locations=LOCATIONS
)
TRANSFORMS = Registry(
    'transform', parent=ROOT_TRANSFORMS, scope=SCOPE, locations=LOCATIONS
)
WEIGHT_INITIALIZERS = Registry(
    'weight initializer',
    parent=ROOT_INITIALIZERS,
    scope=SCOPE,
    locations=LOCATIONS,
)
