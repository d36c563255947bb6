"""Child registries of MMEngine's roots, scope ``fgc_mm``.

A config names our components ``type='fgc_mm.X'`` and keeps
``default_scope='mmpretrain'``, so that everything else stays as upstream.
"""

from fgc_mm import checked_stack  # noqa: F401  isort: skip

from collections.abc import Mapping
from typing import Any

from mmengine import registry as roots
from mmengine.registry import Registry

SCOPE = 'fgc_mm'
# imported when something is first looked up
LOCATIONS = ['fgc_mm.registered']


def _child(root: Registry) -> Registry:
    return Registry(root.name, parent=root, scope=SCOPE, locations=LOCATIONS)


MODELS = _child(roots.MODELS)
HOOKS = _child(roots.HOOKS)
METRICS = _child(roots.METRICS)
OPTIM_WRAPPERS = _child(roots.OPTIM_WRAPPERS)
OPTIM_WRAPPER_CONSTRUCTORS = _child(roots.OPTIM_WRAPPER_CONSTRUCTORS)
DATASETS = _child(roots.DATASETS)
TRANSFORMS = _child(roots.TRANSFORMS)
WEIGHT_INITIALIZERS = _child(roots.WEIGHT_INITIALIZERS)


def class_of(part: Mapping[str, Any], registry: Registry) -> Any:
    """The class of a part of a config, given by its name or as a class.

    Returns:
        The class; None if the part has no type, or the registry no such name.

    Raises:
        RuntimeError: The name is the path of a module that cannot be imported.
    """
    kind = part.get('type')
    return registry.get(kind) if isinstance(kind, str) else kind
