"""Gates that open given channels: so every site is tried, by no luck."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fgc_mm.deploy.dynamic.gate import FusedGate, per_channel
from fgc_mm.deploy.dynamic.port import DynamicPort
from fgc_mm.gates import BinaryConcreteGate, GateDecision
from fgc_mm.sites import SitePort

# Channels of a site to those that are open, (C,) bool.
Opened = Callable[[int], Tensor]
LOGIT = 40.0  # of an open channel; a probability of 1


class ConstantGate(nn.Module):
    """Opens the same channels of every image.

    Args:
        logits: (C,); open are those above 0.
    """

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.register_buffer('logits', logits)

    def forward(self, x: Tensor) -> GateDecision:
        """Decide, whatever the images are."""
        logits = self.logits.expand(len(x), -1)
        return GateDecision(logits, logits.sigmoid(), (logits > 0).to(x))


def partial(channels: int) -> Tensor:
    """Every other channel open; (C,) bool."""
    return torch.arange(channels) % 2 == 0


def single(channels: int) -> Tensor:
    """The last channel open; (C,) bool."""
    return torch.arange(channels) == channels - 1


def empty(channels: int) -> Tensor:
    """No channel open; (C,) bool."""
    return torch.zeros(channels, dtype=torch.bool)


def constant(gate: nn.Module, opened: Tensor) -> nn.Module:
    """A gate that opens given channels, of a kind that the kernel has if the
    real one is.

    It has a logit for each channel, whatever groups the real one decides for.

    Args:
        gate: The real one.
        opened: (C,) bool.
    """
    logits = torch.where(opened, LOGIT, -LOGIT)
    if not FusedGate.can(gate):
        return ConstantGate(logits)
    gate: BinaryConcreteGate = copy.deepcopy(per_channel(gate))
    gate.expand.weight.data.zero_()
    gate.expand.bias.data.copy_(logits)
    return gate


@contextmanager
def forced(backbone: Any, opened: Opened) -> Iterator[None]:
    """The gates of a backbone open given channels meanwhile.

    Args:
        backbone: Masked or dynamic.
        opened: Gives the open channels, (C,) bool, of so many.
    """
    ports = backbone._ports
    gates = [port.gate for port in ports]
    programs = getattr(backbone, '_programs', None)
    for port, gate in zip(ports, gates):
        _use(port, constant(gate, opened(port.site.channels)))
    if programs is not None:  # they have the gates that they were made with
        backbone._programs = {}
    try:
        yield
    finally:
        for port, gate in zip(ports, gates):
            _use(port, gate)
        if programs is not None:
            backbone._programs = programs


def _use(port: SitePort | DynamicPort, gate: nn.Module) -> None:
    if isinstance(port, DynamicPort):
        port.use(gate)
    else:
        port.gate = gate
