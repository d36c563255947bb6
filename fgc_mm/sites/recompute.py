"""Gates in networks with activation recomputation (checkpointing).

Gradient checkpointing stores the input of a part of the network and runs the
part again when the backward pass needs its activations. A gate decides once:
the second run uses the mask of the first.

If the first run recorded a graph (``use_reentrant=False``), the gate is part
of it, and its own small tensors are stored. If it recorded none
(``use_reentrant=True``, reversible networks), the gate runs on a detached
leaf (:class:`DetachedGate`). The gradients of its decision accumulate in
leaves, are backpropagated through the gate, and are added to the gradient of
the producer's input in the second run, which the backward pass reaches after
everything that used the decision.

The second run begins with the random state of the first, but draws no numbers
for the gate. So it sets the state that the first run had after the gate
(:class:`GateDraws`), and dropout after a gate drops the same values.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import get_device_states, set_device_states

from fgc_mm.errors import FGCError
from fgc_mm.sites.call import (
    GatedCall,
    SiteState,
    detached_leaf,
    pop_grad,
    tensors,
)
from fgc_mm.sites.gate_record import GateRecord

Gate = Callable[[Tensor], Any]


class DetachedGate:
    """A gate's own autograd graph, detached at its input and outputs.

    Attributes:
        input: The gate's input, a leaf.
        outputs: The gate's outputs, parts of its graph.
        leaves: The outputs as leaves, which losses and consumers use.
    """

    def __init__(self, gate: Gate, x: Tensor) -> None:
        with torch.enable_grad():
            self.input = x.detach().requires_grad_()
            self.outputs = gate(self.input)
            self.leaves = type(self.outputs)(*map(detached_leaf, self.outputs))

    def gradient(self) -> Tensor | None:
        """Backpropagate the leaves' gradients to the input; reset them."""
        used = [
            (output, leaf)
            for output, leaf in zip(self.outputs, self.leaves)
            if leaf.grad is not None
        ]
        if used:
            outputs, leaves = zip(*used)
            grads = [*map(pop_grad, leaves)]
            # the graph is small, and there may be another backward pass
            torch.autograd.backward(outputs, grads, retain_graph=True)
        return pop_grad(self.input)

    def has_pending_grad(self) -> bool:
        """Whether a gradient has not been backpropagated yet."""
        return any(leaf.grad is not None for leaf in self.leaves)


def decide(gate: Gate, x: Tensor, state: SiteState) -> Any:
    """The gate's decision, in a pass that records a graph."""
    if torch.compiler.is_compiling():
        return gate(x)
    # a part that runs now may run again in the backward pass
    if not (without_graph() or _stores_elsewhere()):
        decision = gate(x)
        state.node = x.grad_fn or decision.mask.grad_fn
        return decision
    draws = state.draws = GateDraws(x)
    if without_graph():
        state.detached_gate = DetachedGate(gate, x)
        state.mask = state.detached_gate.leaves.mask
        decision = state.detached_gate.leaves
    else:
        with store_saved_tensors():
            decision = gate(x)
        state.node = x.grad_fn or decision.mask.grad_fn
    draws.end(x)
    return decision


class GateDraws:
    """The random states before and after a gate's decision on ``x``."""

    def __init__(self, x: Tensor) -> None:
        self._before = self._after = _random_states(x)

    def end(self, x: Tensor) -> None:
        """Read the states after the decision."""
        self._after = _random_states(x)

    def replay(self, x: Tensor) -> None:
        """Set the states after the decision, if the current ones precede it.

        A recomputation that does not restore the random state
        (``preserve_rng_state=False``) keeps its own.
        """
        if all(map(torch.equal, _random_states(x), self._before)):
            cpu, *device = self._after
            torch.set_rng_state(cpu)
            set_device_states(
                [x.get_device()], device, device_type=x.device.type
            )


def _random_states(x: Tensor) -> list[Tensor]:
    """Those of the CPU and of a tensor's device."""
    return [torch.get_rng_state(), *get_device_states(x)[1]]


def without_graph() -> bool:
    """Whether a part runs without a graph and will be recomputed with one."""
    return not (torch.is_grad_enabled() or torch.is_inference_mode_enabled())


def _stores_elsewhere() -> bool:
    return bool(torch._C._autograd._top_saved_tensors_default_hooks(True))


def store_saved_tensors() -> AbstractContextManager:
    """Store tensors saved for backward, overriding checkpointing's hooks."""
    if not _stores_elsewhere():
        return nullcontext()
    return torch.autograd.graph.saved_tensors_hooks(_same, _same)


def _same(tensor: Tensor) -> Tensor:
    return tensor


def record_activation(
    x: Tensor, state: SiteState, layer: Any, part: Callable[[Tensor], Any]
) -> Any:
    """Record ``part`` of an activation, with its graph."""
    if not state.grad or torch.compiler.is_compiling():
        return part(x)
    if not without_graph():
        with store_saved_tensors():
            return part(x)
    leaf = state.leaves[layer] = x.detach().requires_grad_()
    with torch.enable_grad():
        return part(leaf)


def replay_activation(x: Tensor, state: SiteState, layer: Any) -> Tensor:
    """The activation when recomputed; receives the record's gradient."""
    leaf = state.leaves.get(layer)
    return add_grad(x, None if leaf is None else partial(pop_grad, leaf))


class _AddGrad(torch.autograd.Function):
    """Identity; adds another gradient to its own in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, _: Tensor, collect: Callable[[], Tensor | None]
    ) -> Tensor:
        ctx.collect = collect
        return x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        more = ctx.collect()
        return grad if more is None else grad + more, None, None


def add_grad(x: Tensor, collect: Callable[[], Tensor | None] | None) -> Tensor:
    """``x``; adds the result of ``collect`` to its gradient."""
    if collect is None or not torch.is_grad_enabled():
        return x
    # x may not require a gradient although the gate does
    return _AddGrad.apply(x, torch.empty(0, requires_grad=True), collect)


class _JoinOutputs(torch.autograd.Function):
    """Joins outputs and records, so that all are in each backward pass.

    All gradients of the decisions then arrive before any part of the network
    is recomputed, and every part is recomputed.
    """

    @staticmethod
    def forward(
        ctx: Any, call: GatedCall, needed: int, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.call = call  # used by recomputations
        ctx.set_materialize_grads(False)
        ctx.like = [tensor.new_empty(0) for tensor in tensors[:needed]]
        ctx.shapes = [tensor.shape for tensor in tensors[:needed]]
        # a later module may change an output in place
        copies = [tensor.clone() for tensor in tensors[:needed]]
        return (*copies, *tensors[needed:])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        check = partial(_check_collected, ctx.call)
        torch.autograd.Variable._execution_engine.queue_callback(check)
        zeros = map(torch.Tensor.new_zeros, ctx.like, ctx.shapes)
        needed = [
            zero if grad is None else grad for grad, zero in zip(grads, zeros)
        ]
        return (None, None, *needed, *grads[len(needed) :])


def join_outputs(
    call: GatedCall, outputs: Any, records: list[GateRecord]
) -> tuple[Any, list[GateRecord]]:
    """Outputs and records of a call, joined if it will be recomputed.

    Without recomputation they are returned unchanged.
    """
    states = call.states.values()
    masks = [s.decision.mask for s in states if s.used_without_graph]
    if not masks and not any(s.detached_gate or s.leaves for s in states):
        return outputs, records
    needed = [*_with_grad(outputs), *masks]
    record_tensors = [*_with_grad([_tensors(record) for record in records])]
    if not needed and not record_tensors:
        return outputs, records
    given = [*needed, *record_tensors]
    joined = _JoinOutputs.apply(call, len(needed), *given)
    replacement = {id(old): new for old, new in zip(given, joined)}
    return _replace_tensors(outputs, replacement), [
        replace(record, **_replace_tensors(_tensors(record), replacement))
        for record in records
    ]


def _with_grad(nested: Any) -> list[Tensor]:
    unique = {id(t): t for t in tensors(nested) if t.requires_grad}
    return list(unique.values())


def _tensors(record: GateRecord) -> dict[str, Tensor]:
    values = {f.name: getattr(record, f.name) for f in fields(record)}
    return {k: v for k, v in values.items() if isinstance(v, Tensor)}


def _replace_tensors(nested: Any, replacement: dict[int, Tensor]) -> Any:
    """Copy nested tuples, lists and dicts with other tensors."""
    if isinstance(nested, Tensor):
        return replacement.get(id(nested), nested)
    if isinstance(nested, dict):
        pairs = (
            (k, _replace_tensors(v, replacement)) for k, v in nested.items()
        )
        return type(nested)(pairs)
    if not isinstance(nested, (list, tuple)):
        return nested
    parts = [_replace_tensors(part, replacement) for part in nested]
    if hasattr(nested, '_fields'):  # a named tuple
        return type(nested)(*parts)
    return type(nested)(parts)


def _check_collected(call: GatedCall) -> None:
    """At the end of a backward pass, check that no gradient is left."""
    for state in call.states.values():
        leaves = [*state.leaves.values()]
        if state.used_without_graph:
            leaves.append(state.mask)
        pending = any(leaf.grad is not None for leaf in leaves)
        if pending or (
            state.detached_gate and state.detached_gate.has_pending_grad()
        ):
            raise FGCError(
                f'{state.hooks.site.producer} ran without gradients in a '
                'forward pass that records them, and the backward pass did '
                'not recompute it, so its gate gets no gradient; leave this '
                'site out of sites.'
            )
