"""Which runs can start from the one that is trained first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import FGCError
from .run import Method

# what tells one network from another in a backbone's config
NETWORK = 'type', 'depth', 'arch', 'base_channels'


def check_start(first: Method, method: Method) -> None:
    """Refuses a start whose weights a method cannot take.

    mmengine loads what fits and warns of the rest, so that a run with other
    layers than its start would begin with random weights.

    Args:
        first: What is trained first, dense or gated.
        method: What starts from it.

    Raises:
        FGCError: A method without gates starts from a gated network, or the
            method's network is another one than the start's.
    """
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
                'network of its own kind (pretrain of its row in a plan).'
            )


def _network(method: Method) -> tuple[Mapping[str, Any], bool]:
    """The config of the network itself, and whether it has gates."""
    backbone = (method.recipe.get('model') or {}).get('backbone') or {}
    gated = str(backbone.get('type')).rpartition('.')[2] == 'GatedBackbone'
    return (backbone.get('backbone') or {}) if gated else backbone, gated
