"""Checks that a run can start from the weights of another run."""

from collections.abc import Mapping
from typing import Any

from fgc_mm.type_name import type_name

from ..errors import FGCError
from .run import Method

# keys of a backbone's config that must be equal
NETWORK = 'type', 'depth', 'arch', 'base_channels'


def check_start(first: Method, method: Method) -> None:
    """Check that a method can load the weights of the one trained first.

    mmengine loads the weights that fit and only warns about the others, so a
    run whose layers differ from those of its start would begin with random
    weights.

    Raises:
        FGCError: A method without gates starts from a gated network, the
            two networks differ, or the start cannot be a teacher.
    """
    if not method.loads_start:
        _check_teacher(first, method)
        if method.recipe['model']['distillation'].get('teacher'):
            return  # another network
    wanted, start_has_gates = _network(first)
    network, has_gates = _network(method)
    if start_has_gates and not has_gates:
        pruned = method.importance is not None
        what = 'prunes a dense network' if pruned else 'has no gates'
        raise FGCError(
            f'{method.name} {what} and cannot start from {first.config}, '
            'which has gates; give it a dense config in --pretrain, or '
            'pretrain of its row in a plan.'
        )
    for key in NETWORK:
        if network.get(key) != wanted.get(key):
            raise FGCError(
                f'{method.name} has a backbone of {key}='
                f'{network.get(key)!r} and cannot start from {first.config} '
                f'with {key}={wanted.get(key)!r}; let it start from a '
                'network of the same kind (pretrain of its row in a plan).'
            )


def _check_teacher(first: Method, method: Method) -> None:
    """Check the teacher of a distillation, except its layers."""
    if not method.wants_teacher:
        raise FGCError(
            f'{method.name} has a teacher in the plan, but its config has no '
            'model.distillation, or one with a checkpoint; give it '
            'distillation=dict(teacher=CONFIG), or pretrain in place of '
            'teacher.'
        )
    if _network(first)[1]:
        raise FGCError(
            f'{method.name} has the teacher {first.config}, which has gates, '
            'but only dense networks are teachers here; name a dense config.'
        )
    key = 'data_preprocessor'
    if first.recipe.get(key) != method.recipe.get(key):
        raise FGCError(
            f'{method.name} and its teacher {first.config} have different '
            f'{key}s, but the teacher gets the images of the student; give '
            'both the same.'
        )


def _network(method: Method) -> tuple[Mapping[str, Any], bool]:
    """The config of the wrapped network, and whether it has gates."""
    backbone = (method.recipe.get('model') or {}).get('backbone') or {}
    gated = type_name(backbone) == 'GatedBackbone'
    return (backbone.get('backbone') or {}) if gated else backbone, gated
