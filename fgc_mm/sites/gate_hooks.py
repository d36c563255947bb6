"""Forward hooks that run a gate at its site."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fgc_mm.errors import FGCError
from fgc_mm.sites.call import SiteState, state_of
from fgc_mm.sites.gate_record import GateRecord
from fgc_mm.sites.layer_channels import (
    ChannelIndex,
    are_maps,
    channels_second,
    mask_input,
    merge_channels,
    site_channels,
)
from fgc_mm.sites.recompute import (
    add_grad,
    decide,
    record_activation,
    replay_activation,
    without_graph,
)
from fgc_mm.sites.site import GateSite


def owner_of(hook: Any) -> Any:
    """The object whose method a hook, or its partial, is; else ``None``."""
    return getattr(getattr(hook, 'func', hook), '__self__', None)


class GateHooks:
    """Forward hooks that run a site's gate and apply its masks.

    There are two kinds of forward-pre-hook: one on the producer, whose input
    the gate reads, and one on each consumer, whose input is masked; for a
    residual site also a forward hook on the branch's end, whose output is
    masked. Outside a gated call the hooks do nothing, so the backbone itself
    is the dense network.

    The state of a gated pass belongs to the call
    (:mod:`fgc_mm.sites.call`), not to this object, so several threads may
    run the model at the same time.

    The hooks are bound methods, which ``copy.deepcopy`` (EMA) copies along
    with this object; a closure would keep a reference to the original gate.

    Args:
        site: The site.
        gate: Its gate.
    """

    def __init__(self, site: GateSite, gate: nn.Module) -> None:
        self.site = site
        self.name = site.name
        self.gate = gate
        self._single_consumer = len(site.consumers) == 1

    @staticmethod
    def attach(
        site_hooks: Sequence['GateHooks'], find: Callable[[str], nn.Module]
    ) -> None:
        """Register all hooks on the modules that ``find`` returns for a path.

        The hooks that mask come first: a layer may consume one site and
        produce another, and a gate must read its input after the mask.
        """
        for hooks in site_hooks:
            hooks._attach_masks(find)
        for hooks in site_hooks:
            layer = find(hooks.site.producer)
            layer.register_forward_pre_hook(hooks._decide)

    def _attach_masks(self, find: Callable[[str], nn.Module]) -> None:
        for consumer in self.site.consumers:
            layer = find(consumer.path)
            positions = consumer.positions
            index = None if positions is None else ChannelIndex(positions)
            layer.register_forward_pre_hook(partial(self._mask, index))
        if self.site.branch_end is not None:
            producer = find(self.site.producer)
            find(self.site.branch_end).register_forward_hook(
                partial(self._mask_end, producer)
            )

    def is_attached(self, layer: nn.Module | None) -> bool:
        """Whether the gate reads, or masks, the input of this layer."""
        hooks = () if layer is None else layer._forward_pre_hooks.values()
        return any(owner_of(hook) is self for hook in hooks)

    def replaced_consumer(self, network: nn.Module) -> str | None:
        """Path of a consumer that may read closed channels, or ``None``.

        A wrapper of the hooked layer (FSDP, gradient checkpointing) is no
        replacement, unless it has further layers (LoRA), which may read the
        input without the mask.

        Args:
            network: The wrapped network as it is now.
        """
        for consumer in self.site.consumers:
            try:
                module = network.get_submodule(consumer.path)
            except AttributeError:  # it was removed, so it cannot run
                continue
            if self.is_attached(module):
                continue
            hooked = [x for x in module.modules() if self.is_attached(x)]
            masked = {part for layer in hooked for part in layer.modules()}
            others = (x for x in module.modules() if x not in masked)
            if not hooked or any(x._parameters for x in others):
                return consumer.path
        return None

    def record(self, state: SiteState) -> GateRecord | None:
        """The record of a call; ``None`` if the gate did not run."""
        if state.decision is None:
            return None
        activation = None
        parts = state.parts
        if parts:
            activation = merge_channels(parts, self.site.channels)
            if are_maps(activation):
                parts = []  # the activation has all peaks
        return GateRecord(
            self.site, activation, *state.decision, parts=tuple(parts)
        )

    def _decide(
        self, layer: nn.Module, args: tuple[Tensor, ...]
    ) -> tuple[Tensor, ...] | None:
        state = state_of(self)
        if state is None:
            return None
        if state.forward_done:
            if state.draws is not None:
                state.draws.replay(args[0])
            x = add_grad(
                args[0], state.detached_gate and state.detached_gate.gradient
            )
            return (x, *args[1:])
        if state.decision is not None:
            raise FGCError(
                f'{self.site.producer} ran twice in one forward pass, but a '
                'gate decides once per image; leave this site out of sites.'
            )
        if state.grad:
            gate = partial(self._run_gate, layer)
            state.decision = decide(gate, args[0], state)
        else:
            state.decision = self._run_gate(layer, args[0])
        return None

    def _run_gate(self, layer: nn.Module, x: Tensor) -> Any:
        """The gate's decision on the producer's input."""
        return self.gate(channels_second(layer, x))

    def _mask(
        self,
        index: ChannelIndex | None,
        layer: nn.Module,
        args: tuple[Tensor, ...],
    ) -> tuple[Tensor, ...] | None:
        state = state_of(self)
        if state is None:
            return None
        mask = self._current_mask(state)
        if self.site.branch_end is not None:
            # the factor is applied at the end of the branch; here closed
            # channels are kept at 0, which norms would change
            mask = (mask != 0).to(mask)
        x = args[0]
        # in place, unless something else needs the unmasked input: a recorded
        # activation, a second consumer of the same memory (for which a factor
        # other than 0 or 1 would act twice), or a recomputation
        inplace = self._single_consumer and not state.grad
        if state.keep:
            x, inplace = self._record_input(state, layer, x, index), False
        return (mask_input(layer, x, mask, index, inplace), *args[1:])

    def _record_input(
        self,
        state: SiteState,
        layer: nn.Module,
        x: Tensor,
        index: ChannelIndex | None,
    ) -> Tensor:
        """Record the channels, unless an earlier consumer read all maps."""
        if state.forward_done:
            return replay_activation(x, state, layer)
        channels = self.site.channels
        if not any(
            len(present) == channels and are_maps(values)
            for present, values in state.parts
        ):
            state.parts.append(
                record_activation(
                    x,
                    state,
                    layer,
                    lambda x: site_channels(layer, x, index, channels),
                )
            )
        return x

    def _mask_end(
        self, producer: nn.Module, module: nn.Module, _: Any, output: Tensor
    ) -> Tensor | None:
        state = state_of(self)
        if state is None:
            return None
        state.masked_at_end = True
        mask = self._current_mask(state)
        if state.keep and state.forward_done:
            output = replay_activation(output, state, module)
        elif state.keep:
            own = record_activation(
                output, state, module, partial(channels_second, producer)
            )
            state.parts = [(torch.arange(own.shape[1]), own)]
        return mask_input(producer, output, mask, None)

    def _current_mask(self, state: SiteState) -> Tensor:
        if state.forward_done:
            return state.mask
        decision = state.decision
        if decision is None:
            raise FGCError(
                f'{self.site.producer} had not run when one of its consumers '
                'did, so there is no gate decision: the executed layers '
                'depend on the values of the images, or another module has '
                'replaced this one; wrap the network that will run, or leave '
                'this site out of sites.'
            )
        if state.grad and state.detached_gate is None and without_graph():
            state.used_without_graph = True
        return decision.mask
