"""A gate's decision for one batch, and the channels it opens."""

from __future__ import annotations

import copy
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fgc_mm.functional.channel_groups import first_of_groups, spread_groups
from fgc_mm.gates import BinaryConcreteGate, GateDecision, GroupedGate
from fgc_mm.gates.checks import logit


class Choice(NamedTuple):
    """What a gate decided.

    Attributes:
        decision: As gates say it.
        index: (n,) int64, the open channels; of one image only.
        factors: (n,) what the open ones are multiplied with, if not 1.
    """

    decision: GateDecision
    index: Tensor
    factors: Tensor | None


class PlainGate:
    """Any gate: its own forward, its mask turned into a list."""

    def __init__(self, gate: nn.Module, in_channels: int) -> None:
        self.gate = gate
        self.in_channels = in_channels

    def run(self, x: Tensor, listed: Tensor | None) -> Choice:
        """``x``: (N, C_in, ...), or the listed channels of it."""
        if listed is not None:
            x = spread(x, listed, self.in_channels)
        decision = self.gate(x)
        if len(x) != 1:
            return Choice(decision, x.new_empty(0, dtype=torch.long), None)
        row = decision.mask[0]
        index = row.nonzero().squeeze(1)
        factors = row.index_select(0, index)
        return Choice(
            decision, index, factors if bool((factors != 1).any()) else None
        )


class FusedGate:
    """:class:`BinaryConcreteGate` in one call of the kernel.

    Of a gate that decides for groups the kernel computes every channel's
    logit, all alike within a group.

    Attributes:
        compiled: The kernel's gate.
        threshold: That it was made with.
    """

    def __init__(
        self, gate: BinaryConcreteGate | GroupedGate, kernel: ModuleType
    ) -> None:
        self._sizes = gate.sizes if isinstance(gate, GroupedGate) else None
        gate = per_channel(gate)
        norm = gate.norm
        scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
        shift = norm.bias - norm.running_mean * scale
        self.threshold = gate.threshold
        least = logit(gate.threshold)
        squeeze = gate.squeeze.weight * scale[:, None]
        values = squeeze.t(), shift, gate.expand.weight, gate.expand.bias
        self.compiled = kernel.Gate(*(v.detach() for v in values), least)

    def run(self, x: Tensor, listed: Tensor | None) -> Choice:
        """As :meth:`PlainGate.run`."""
        logits, mask, index = self.compiled.run(x, listed)
        logits = first_of_groups(logits, self._sizes)
        return Choice(
            GateDecision(logits, logits.sigmoid(), mask), index, None
        )

    @staticmethod
    def can(gate: nn.Module) -> bool:
        """Whether the kernel computes the same."""
        gate = gate.gate if isinstance(gate, GroupedGate) else gate
        return (
            type(gate) is BinaryConcreteGate
            and type(gate.norm) is nn.BatchNorm1d
            and gate.norm.track_running_stats
            and gate.norm.affine
            and all(map(_is_plain, (gate.squeeze, gate.expand)))
            and all(
                p.dtype == torch.float32 and p.device.type == 'cpu'
                for p in gate.parameters()
            )
        )


@torch.no_grad()
def per_channel(gate: nn.Module) -> BinaryConcreteGate:
    """A gate with a logit for each channel that opens the same in evaluation.

    Args:
        gate: For channels, which is returned as it is, or for groups.
    """
    if not isinstance(gate, GroupedGate):
        return gate
    inner, sizes = gate.gate, gate.sizes
    whole = copy.deepcopy(inner)
    wide = nn.Linear(inner.expand.in_features, sum(sizes))
    wide.weight.copy_(spread_groups(inner.expand.weight.t(), sizes).t())
    wide.bias.copy_(spread_groups(inner.expand.bias[None], sizes)[0])
    whole.expand = wide
    return whole


def _is_plain(layer: nn.Module) -> bool:
    """Whether its weight is a parameter that nothing makes anew."""
    return type(layer) is nn.Linear and not layer._forward_pre_hooks


def spread(x: Tensor, listed: Tensor, channels: int) -> Tensor:
    """Listed channels at their places among all, the others 0."""
    wide = x.new_zeros(len(x), channels, *x.shape[2:])
    return wide.index_copy_(1, listed, x)
