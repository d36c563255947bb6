"""Weights of a masked model, loaded into a dynamic one: norms fold again."""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from torch import Tensor, nn

from fgc_mm.errors import FGCError

State = MutableMapping[str, Tensor]


@dataclass(frozen=True)
class FoldedConv:
    """A conv of a dynamic network, and the norm that it has taken in.

    Attributes:
        conv: Its path.
        has_bias: Whether it had a bias of its own.
        norm: The norm's path; ``''`` if it has taken in none.
        parts: The norm's parameters and statistics, by name.
        eps: The norm's.
    """

    conv: str
    has_bias: bool
    norm: str = ''
    parts: tuple[str, ...] = ()
    eps: float = 0.0

    @classmethod
    def of(
        cls, conv: nn.Conv2d, norm: nn.Module | None, paths: dict
    ) -> FoldedConv:
        """From the modules before they were folded.

        Args:
            conv: The conv.
            norm: What it takes in, if anything.
            paths: Of modules.
        """
        known = paths[conv], conv.bias is not None
        if norm is None:
            return cls(*known)
        parts = ('weight', 'bias', 'running_mean', 'running_var')
        there = [name for name in parts if getattr(norm, name) is not None]
        return cls(*known, paths[norm], tuple(there), norm.eps)


def folded(
    conv: nn.Conv2d | SimpleNamespace, norm: nn.BatchNorm2d | SimpleNamespace
) -> tuple[Tensor, Tensor]:
    """Weight and bias of conv and norm in one.

    In float64, so that one rounding is all that folding costs.
    """
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    shift = -norm.running_mean.double() * scale
    if norm.bias is not None:
        shift = shift + norm.bias.double()
    if conv.bias is not None:
        shift = shift + conv.bias.double() * scale
    weight = conv.weight.double() * scale.reshape(-1, 1, 1, 1)
    dtype = conv.weight.dtype
    return weight.to(dtype).detach(), shift.to(dtype).detach()


def refold(state: State, prefix: str, convs: Iterable[FoldedConv]) -> None:
    """Turn the entries of a masked network into those of its dynamic one.

    Entries of a dynamic network stay as they are.

    Args:
        state: Changed.
        prefix: Of the network's entries.
        convs: All convs that the dynamic network has folded.

    Raises:
        FGCError: Parts of a conv and its norm are missing.
    """
    for conv in convs:
        weight = state.get(f'{prefix}{conv.conv}.weight')
        bias = f'{prefix}{conv.conv}.bias'
        # of a dynamic network every conv has a bias
        masked = weight is not None and bias not in state
        if conv.norm and (masked or _norm_keys(state, prefix, conv)):
            _fold(state, prefix, conv)
        elif masked and not conv.has_bias:
            state[bias] = weight.new_zeros(len(weight))


class MaskedEntries:
    """A hook of a dynamic backbone that takes a masked one's weights.

    Args:
        before: Names of the masked network's entries.
        after: Those of the dynamic network.
        convs: All convs that the dynamic network has folded.
    """

    def __init__(
        self,
        before: Iterable[str],
        after: Iterable[str],
        convs: Iterable[FoldedConv],
    ) -> None:
        self._before = set(before)
        self._convs = list(convs)
        norms = tuple(f'{conv.norm}.' for conv in self._convs if conv.norm)
        self._unknown = [
            name
            for name in sorted(self._before - set(after))
            if not name.startswith(norms)
        ]

    def adopt(self, state: State, prefix: str, *_: Any) -> None:
        """As a pre-hook of ``load_state_dict``.

        Args:
            state: Of a masked, a dynamic or a plain network; changed.
            prefix: Of the backbone's entries.

        Raises:
            FGCError: An entry of a masked network that cannot be folded.
        """
        inner = f'{prefix}backbone.'
        for name in self._before:
            if prefix + name in state:  # a plain network's
                state[inner + name] = state.pop(prefix + name)
        left = [name for name in self._unknown if inner + name in state]
        if left:
            raise FGCError(
                f'{left[0]} of a masked checkpoint cannot be folded into a '
                'dynamic model; load it into the masked model, and make the '
                'dynamic one of that.'
            )
        refold(state, inner, self._convs)


def _norm_keys(state: State, prefix: str, conv: FoldedConv) -> list[str]:
    start = f'{prefix}{conv.norm}.'
    return [key for key in state if key.startswith(start)]


def _fold(state: State, prefix: str, conv: FoldedConv) -> None:
    own = ('weight', 'bias') if conv.has_bias else ('weight',)
    layer = _parts(state, f'{prefix}{conv.conv}.', own)
    norm = _parts(state, f'{prefix}{conv.norm}.', conv.parts)
    norm.eps = conv.eps
    for key in _norm_keys(state, prefix, conv):
        del state[key]
    weight, bias = folded(layer, norm)
    state[f'{prefix}{conv.conv}.weight'] = weight
    state[f'{prefix}{conv.conv}.bias'] = bias


def _parts(state: State, start: str, names: Iterable[str]) -> SimpleNamespace:
    """Entries as attributes; those that a module has not are ``None``."""
    missing = [start + name for name in names if start + name not in state]
    if missing:
        raise FGCError(
            f'{missing[0]} is not in the checkpoint, but its conv and norm '
            'are folded into one; give a whole checkpoint of the masked '
            'model.'
        )
    found = {name: state[start + name] for name in names}
    return SimpleNamespace(**{'weight': None, 'bias': None, **found})
