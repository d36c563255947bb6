"""A gate at its site: hooks on the backbone's own modules."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fgc_mm.errors import FGCError
from fgc_mm.functional import mask_channels
from fgc_mm.sites.call import SiteState, state_of
from fgc_mm.sites.layout import (
    Places,
    assemble,
    channels_last,
    channels_second,
    mask_input,
    site_channels,
)
from fgc_mm.sites.recompute import (
    collected,
    decide,
    keep,
    kept_again,
    without_graph,
)
from fgc_mm.sites.record import GateRecord
from fgc_mm.sites.site import GateSite, Member


class SitePort:
    """Joins a gate to a site without a change to the backbone's code.

    Two kinds of forward-pre-hook: on the producer, whose input the gate
    reads, and on each consumer, whose input is masked; for a residual site
    also a hook on the branch's end, whose output is masked. They do nothing
    outside of a gated call, so the backbone on its own is the dense network.

    While a model runs gated, the state is the call's, see
    :mod:`fgc_mm.sites.call`; the port itself stays as it is, so several
    threads may run the model at once.

    The hooks are bound methods, which ``copy.deepcopy`` (EMA) copies along
    with the port; a closure would leave the copy tied to the original gate.
    """

    def __init__(self, site: GateSite, gate: nn.Module) -> None:
        self.site = site
        self.name = site.name
        self.gate = gate
        self._alone = len(site.consumers) == 1

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
            hook = partial(self._mask, _places(consumer))
            layer.register_forward_pre_hook(hook)
        if self.site.branch_end is not None:
            last = channels_last(find(self.site.producer))
            hook = partial(self._mask_end, last)
            find(self.site.branch_end).register_forward_hook(hook)

    def is_attached(self, layer: nn.Module | None) -> bool:
        """Whether the gate reads the input of this layer."""
        hooks = layer._forward_pre_hooks.values() if layer else ()
        return any(getattr(hook, '__self__', None) is self for hook in hooks)

    def begin(self, keep: bool, **_: bool) -> SiteState:
        """The site's state in a new call."""
        return SiteState(self, keep)

    def record(self, state: SiteState) -> GateRecord | None:
        """What the gate did in a call, if it did."""
        if state.decision is None:
            return None
        parts = state.parts
        activation = assemble(parts, self.site.channels) if parts else None
        return GateRecord(self.site, activation, *state.decision)

    def _decide(
        self, layer: nn.Module, args: tuple[Tensor, ...]
    ) -> tuple[Tensor, ...] | None:
        state = state_of(self)
        if state is None:
            return None
        if state.over:
            x = collected(args[0], state.apart and state.apart.gradient)
            return (x, *args[1:])
        if state.decision is not None:
            raise FGCError(
                f'{self.site.producer} ran twice in one forward pass, but a '
                'gate decides once per image; leave this site out of sites.'
            )
        if state.grad:
            gate = partial(self._ask, layer)
            state.decision = decide(gate, args[0], state)
        else:
            state.decision = self._ask(layer, args[0])
        return None

    def _ask(self, layer: nn.Module, x: Tensor) -> Any:
        """The gate's decision on the producer's input."""
        return self.gate(channels_second(layer, x))

    def _mask(
        self,
        places: Places | None,
        layer: nn.Module,
        args: tuple[Tensor, ...],
    ) -> tuple[Tensor, ...] | None:
        state = state_of(self)
        if state is None:
            return None
        mask = self._mask_of_now(state)
        if self.site.branch_end is not None:
            # the factor has acted there: what is closed stays so behind norms
            mask = (mask != 0).to(mask)
        x = args[0]
        # nobody else needs what was there, but a kept activation; a second
        # consumer of the same memory, if a factor is not 0 or 1; and a
        # second run of a part of the network
        inplace = self._alone and not state.grad
        if state.keep:
            x, inplace = self._note(state, layer, x, places), False
        return (mask_input(layer, x, mask, places, inplace), *args[1:])

    def _note(
        self,
        state: SiteState,
        layer: nn.Module,
        x: Tensor,
        places: Places | None,
    ) -> Tensor:
        """Keep the channels, unless those of earlier consumers are all."""
        if state.over:
            return kept_again(x, state, layer)
        channels = self.site.channels
        if not any(len(present) == channels for present, _ in state.parts):
            state.parts.append(
                keep(
                    x,
                    state,
                    layer,
                    lambda x: site_channels(layer, x, places, channels),
                )
            )
        return x

    def _mask_end(
        self, last: bool, module: nn.Module, _: Any, output: Tensor
    ) -> Tensor | None:
        state = state_of(self)
        if state is None:
            return None
        state.ended = True
        mask = self._mask_of_now(state)
        if state.keep and state.over:
            output = kept_again(output, state, module)
        elif state.keep:
            own = keep(output, state, module, partial(_second, last))
            state.parts = [(torch.arange(own.shape[1]), own)]
        masked = mask_channels(_second(last, output), mask)
        return masked.movedim(1, -1) if last else masked

    def _mask_of_now(self, state: SiteState) -> Tensor:
        if state.over:
            return state.mask
        decision = state.decision
        if decision is None:
            raise FGCError(
                f'{self.site.producer} had not run when one of its consumers '
                'did, so its gate could not decide: which layers run depends '
                'on the values of the images, or another module has taken '
                'its place; wrap the network that is to run, or leave this '
                'site out of sites.'
            )
        if state.grad and state.apart is None and without_graph():
            state.crossed = True
        return decision.mask


def _places(consumer: Member) -> Places | None:
    if consumer.positions is None:
        return None
    return Places(consumer.positions)


def _second(last: bool, x: Tensor) -> Tensor:
    """With the channels as the second dimension."""
    return x.movedim(-1, 1) if last else x
