"""Gates in networks that run parts of themselves again in the backward pass.

Gradient checkpointing stores the input of a part of the network and runs the
part again when the backward pass needs what is inside. A gate decides once:
the second run takes the first one's mask. Where the first run recorded a
graph (``use_reentrant=False``), the gate is part of it, and its own small
tensors are stored. Where it recorded none (``use_reentrant=True``, reversible
networks), the gate runs on a leaf of its own, *apart*; its gradient is
collected at leaves for the decision and joins the producer's input in the
second run, which by then is behind all that used the decision.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fgc_mm.errors import FGCError
from fgc_mm.sites.call import (
    GatedCall,
    SiteState,
    cut,
    take_grad,
    tensors_in,
)
from fgc_mm.sites.record import GateRecord

Gate = Callable[[Tensor], Any]


class Apart:
    """A gate's own graph, between two leaves.

    Attributes:
        read: What the gate read, a leaf.
        made: What it said, as parts of its graph.
        leaves: The same, as leaves: what losses and consumers use.
    """

    def __init__(self, gate: Gate, x: Tensor) -> None:
        with torch.enable_grad():
            self.read = x.detach().requires_grad_()
            self.made = gate(self.read)
            self.leaves = type(self.made)(*map(cut, self.made))

    def gradient(self) -> Tensor | None:
        """For what was read, from those of the leaves; they start anew."""
        used = [
            (made, leaf)
            for made, leaf in zip(self.made, self.leaves)
            if leaf.grad is not None
        ]
        if used:
            # the graph is small, and a backward pass may come again
            torch.autograd.backward(
                [made for made, _ in used],
                [leaf.grad for _, leaf in used],
                retain_graph=True,
            )
            for _, leaf in used:
                leaf.grad = None
        return take_grad(self.read)

    def waits(self) -> bool:
        """Whether a gradient has come that nothing has collected."""
        return any(leaf.grad is not None for leaf in self.leaves)


def decide(gate: Gate, x: Tensor, state: SiteState) -> Any:
    """The gate's decision, in a pass that records a graph.

    Args:
        gate: From ``x`` to its decision.
        x: The producer's input.
        state: The site's.
    """
    if torch.compiler.is_compiling():
        return gate(x)
    if without_graph():
        state.apart = Apart(gate, x)
        state.mask = state.apart.leaves.mask
        return state.apart.leaves
    with stored():
        decision = gate(x)
    state.node = x.grad_fn or decision.mask.grad_fn
    return decision


def without_graph() -> bool:
    """Whether a part runs without a graph; its second run can have one."""
    return not (torch.is_grad_enabled() or torch.is_inference_mode_enabled())


def stored() -> AbstractContextManager:
    """What is saved for the backward pass is stored, not computed again."""
    if not torch._C._autograd._top_saved_tensors_default_hooks(True):
        return nullcontext()
    return torch.autograd.graph.saved_tensors_hooks(_same, _same)


def _same(tensor: Tensor) -> Tensor:
    return tensor


def keep(
    x: Tensor, state: SiteState, layer: Any, part: Callable[[Tensor], Any]
) -> Any:
    """What is recorded of an activation: ``part`` of it, with its graph."""
    if not state.grad or torch.compiler.is_compiling():
        return part(x)
    if not without_graph():
        with stored():
            return part(x)
    leaf = state.kept[layer] = x.detach().requires_grad_()
    with torch.enable_grad():
        return part(leaf)


def kept_again(x: Tensor, state: SiteState, layer: Any) -> Tensor:
    """The activation in a second run; it gets the record's gradient."""
    leaf = state.kept.get(layer)
    return collected(x, None if leaf is None else partial(take_grad, leaf))


class _Collect(torch.autograd.Function):
    """The input itself; its gradient is joined by another one."""

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


def collected(
    x: Tensor, collect: Callable[[], Tensor | None] | None
) -> Tensor:
    """``x``, whose gradient is joined by what ``collect`` gives."""
    if collect is None or not torch.is_grad_enabled():
        return x
    # x may need no gradient, but the gate does
    return _Collect.apply(x, torch.empty(0, requires_grad=True), collect)


class _Join(torch.autograd.Function):
    """Outputs and records, so that a backward pass has all or none.

    What losses say about the decisions arrives before any part of the
    network runs again, and every part does.
    """

    @staticmethod
    def forward(
        ctx: Any, call: GatedCall, needed: int, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.call = call  # a second run asks it
        ctx.set_materialize_grads(False)
        ctx.like = [tensor.new_empty(0) for tensor in tensors[:needed]]
        ctx.shapes = [tensor.shape for tensor in tensors[:needed]]
        # a module behind may change an output in place
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


def joined(
    call: GatedCall, outputs: Any, records: list[GateRecord]
) -> tuple[Any, list[GateRecord]]:
    """What a call returns, after a pass that runs again without a graph.

    Another one's outputs and records come back as they are.
    """
    states = call.states.values()
    crossed = [s.decision.mask for s in states if s.crossed]
    if not crossed and not any(s.apart or s.kept for s in states):
        return outputs, records
    needed = [*_graphs(outputs), *crossed]
    said = [*_graphs([_tensors(record) for record in records])]
    if not needed and not said:
        return outputs, records
    given = [*needed, *said]
    made = _Join.apply(call, len(needed), *given)
    swap = {id(old): new for old, new in zip(given, made)}
    return _swapped(outputs, swap), [
        replace(record, **_swapped(_tensors(record), swap))
        for record in records
    ]


def _graphs(nested: Any) -> list[Tensor]:
    unique = {id(t): t for t in tensors_in(nested) if t.requires_grad}
    return list(unique.values())


def _tensors(record: GateRecord) -> dict[str, Tensor]:
    values = {f.name: getattr(record, f.name) for f in fields(record)}
    return {k: v for k, v in values.items() if isinstance(v, Tensor)}


def _swapped(nested: Any, swap: dict[int, Tensor]) -> Any:
    """The same nested tuples, lists and dicts of other tensors."""
    if isinstance(nested, Tensor):
        return swap.get(id(nested), nested)
    if isinstance(nested, dict):
        pairs = ((k, _swapped(v, swap)) for k, v in nested.items())
        return type(nested)(pairs)
    if not isinstance(nested, (list, tuple)):
        return nested
    parts = [_swapped(part, swap) for part in nested]
    if hasattr(nested, '_fields'):  # a named tuple
        return type(nested)(*parts)
    return type(nested)(parts)


def _check_collected(call: GatedCall) -> None:
    """At the end of a backward pass, no gradient may be left over."""
    for state in call.states.values():
        leaves = [*state.kept.values()]
        if state.crossed:
            leaves.append(state.mask)
        left = any(leaf.grad is not None for leaf in leaves)
        if left or (state.apart and state.apart.waits()):
            raise FGCError(
                f'{state.port.site.producer} ran without gradients in a '
                'forward pass that records them, and the backward pass did '
                'not run it again, so its gate cannot learn; leave this site '
                'out of sites.'
            )
