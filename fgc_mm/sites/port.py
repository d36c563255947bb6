"""A gate at its site: hooks on the backbone's own modules."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fgc_mm.errors import FGCError
from fgc_mm.functional import mask_channels
from fgc_mm.sites.layout import (
    assemble,
    channels_last,
    channels_second,
    mask_input,
    site_channels,
)
from fgc_mm.sites.record import GateRecord
from fgc_mm.sites.site import GateSite, Member


class SitePort:
    """Joins a gate to a site without a change to the backbone's code.

    Two kinds of forward-pre-hook: on the producer, whose input the gate
    reads, and on each consumer, whose input is masked; for a residual site
    also a hook on the branch's end, whose output is masked. They do nothing
    while the port is closed, so the backbone on its own is the dense network.

    The hooks are bound methods, which ``copy.deepcopy`` (EMA) copies along
    with the port; a closure would leave the copy tied to the original gate.
    """

    def __init__(self, site: GateSite, gate: nn.Module) -> None:
        self.site = site
        self.gate = gate
        self._open = False
        self._keep_activation = False
        self._decision: Any | None = None
        self._parts: list[tuple[Tensor, Tensor]] = []
        self.ended = False  # whether the branch's end was masked

    @staticmethod
    def attach(
        ports: Sequence['SitePort'], find: Callable[[str], nn.Module]
    ) -> None:
        """Hang all hooks on the modules that ``find`` gives for a path.

        All masks first: a layer may consume one site and produce another,
        and a gate must not see what another has closed.
        """
        for port in ports:
            port._attach_masks(find)
        for port in ports:
            layer = find(port.site.producer)
            layer.register_forward_pre_hook(port._decide)

    def _attach_masks(self, find: Callable[[str], nn.Module]) -> None:
        for consumer in self.site.consumers:
            layer = find(consumer.path)
            hook = partial(self._mask, _positions(consumer))
            layer.register_forward_pre_hook(hook)
        if self.site.branch_end is not None:
            last = channels_last(find(self.site.producer))
            hook = partial(self._mask_end, last)
            find(self.site.branch_end).register_forward_hook(hook)

    def open(self, keep_activation: bool) -> None:
        """Let the gate act until :meth:`close`."""
        self._open, self.ended = True, False
        self._keep_activation = keep_activation

    def close(self) -> GateRecord | None:
        """End the gate's action; the record of what it did, if it did."""
        decision, parts = self._decision, self._parts
        self._open, self._decision, self._parts = False, None, []
        if decision is None:
            return None
        activation = assemble(parts, self.site.channels) if parts else None
        return GateRecord(self.site, activation, *decision)

    def _decide(self, layer: nn.Module, args: tuple[Tensor, ...]) -> None:
        if not self._open:
            return
        if self._decision is not None:
            raise FGCError(
                f'{self.site.producer} ran twice in one forward pass, but a '
                'gate decides once per image; leave this site out of sites.'
            )
        self._decision = self.gate(channels_second(layer, args[0]))

    def _mask(
        self,
        positions: Tensor | None,
        layer: nn.Module,
        args: tuple[Tensor, ...],
    ) -> tuple[Tensor, ...] | None:
        if not self._open:
            return None
        mask = self._mask_of_now()
        if self.site.branch_end is not None:
            # the factor has acted there: what is closed stays so behind norms
            mask = (mask != 0).to(mask)
        if positions is not None:
            positions = positions.to(args[0].device)
        if self._keep_activation:
            self._note(layer, args[0], positions)
        # nobody else needs what was there, but a kept activation; and a
        # second consumer of the same memory, if a factor is not 0 or 1
        inplace = not self._keep_activation and len(self.site.consumers) == 1
        x = mask_input(layer, args[0], mask, positions, inplace)
        return (x, *args[1:])

    def _note(
        self, layer: nn.Module, x: Tensor, positions: Tensor | None
    ) -> None:
        """Keep the channels, unless those of earlier consumers are all."""
        channels = self.site.channels
        if not any(len(present) == channels for present, _ in self._parts):
            self._parts.append(site_channels(layer, x, positions, channels))

    def _mask_end(
        self, last: bool, module: nn.Module, _: Any, output: Tensor
    ) -> Tensor | None:
        if not self._open:
            return None
        self.ended = True
        mask = self._mask_of_now()
        second = output.movedim(-1, 1) if last else output
        if self._keep_activation:
            self._parts = [(torch.arange(second.shape[1]), second)]
        masked = mask_channels(second, mask)
        return masked.movedim(1, -1) if last else masked

    def _mask_of_now(self) -> Tensor:
        if self._decision is None:
            raise FGCError(
                f'{self.site.producer} had not run when one of its consumers '
                'did, so its gate could not decide; leave this site out of '
                'sites.'
            )
        return self._decision.mask


def _positions(consumer: Member) -> Tensor | None:
    if consumer.positions is None:
        return None
    return torch.tensor(consumer.positions)
