"""Which runs may start from the one that is trained first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import FGCError
from .run import Method

# what tells one network from another in a backbone's config
NETWORK = 'type', 'depth', 'arch', 'base_channels'


def check_start(first: Method, methods: Sequence[Method]) -> None:
    """Refuses a start whose weights a method cannot take.

    mmengine loads what fits and warns of the rest, so that a run with other
    layers than its start would begin with random weights.

    Args:
        first: What ``--pretrain`` trains, dense or gated.
        methods: Those that start from it.

    Raises:
        FGCError: A method without gates starts from a gated network, or a
            method's network is another one than the start's.
    """
    wanted, gated = _network(first)
    for method in methods:
        network, has_gates = _network(method)
        if gated and not has_gates:
            what = 'prunes a dense network' if method.importance else (
                'has no gates'
            )  # fmt: skip
            raise FGCError(
                f'{method.name} {what} and cannot start from '
                f'{first.config}, which has gates; compare it in a run of '
                'its own, with a dense --pretrain config.'
            )
        other = [k for k in NETWORK if network.get(k) != wanted.get(k)]
        if other:
            key = other[0]
            raise FGCError(
                f'{method.name} has a backbone of {key}='
                f'{network.get(key)!r} and cannot start from {first.config} '
                f'with {key}={wanted.get(key)!r}; give each network a '
                'comparison, or a --pretrain config, of its own.'
            )


def _network(method: Method) -> tuple[Mapping[str, Any], bool]:
    """The config of the network itself, and whether it has gates."""
    backbone = (method.recipe.get('model') or {}).get('backbone') or {}
    gated = str(backbone.get('type')).rpartition('.')[2] == 'GatedBackbone'
    return (backbone.get('backbone') or {}) if gated else backbone, gated
