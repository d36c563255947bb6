"""One gated forward pass: what its gates decided, apart from the modules.

Ports and layers belong to a model, and a model may serve several threads at
once; so the state of a pass lives in a :class:`GatedCall`. Each thread has a
stack of the calls that it runs, the innermost last.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from fgc_mm.errors import FGCError

KEY = 'fgc_mm.call'  # in the metadata of a graph's nodes


class SiteState:
    """What happened at one site in one call.

    Attributes:
        port: The site's port.
        keep: Whether the activation before the gate is recorded.
        grad: The call's.
        over: The forward pass has returned; who reads the state now is a
            recomputation in the backward pass.
        decision: What the gate said.
        parts: The activations so far, by consumer.
        ended: Whether the branch's end was masked.
        node: What made the producer's input, in the graph.
        mask: (N, C) the decision's mask, cut off the graph; what a
            recomputation masks with.
        apart: See :mod:`fgc_mm.sites.recompute`; ``None``: the decision is
            part of the graph.
        kept: For a layer, the recorded activation's own leaf.
        crossed: A consumer ran without a graph, though the gate has one.
    """

    over = False
    ended = False
    crossed = False
    decision: Any | None = None
    node: Any | None = None
    mask: Tensor | None = None
    apart: Any | None = None
    grad = False
    kept: dict[Any, Tensor] | None = None

    def __init__(self, port: Any, keep: bool) -> None:
        self.port = port
        self.keep = keep
        self.parts: list[tuple[Tensor, Tensor]] | None = [] if keep else None


class GatedCall:
    """The states of all sites in one forward pass.

    Args:
        ports: The model's ports, in order.
        keep: Whether activations are recorded.
        **options: For the ports' states.

    Attributes:
        states: By the site's name.
        grad: Whether a graph is recorded, which may run parts again.
    """

    def __init__(
        self, ports: Sequence[Any], keep: bool, **options: bool
    ) -> None:
        self.states: dict[str, SiteState] = {
            port.name: port.begin(keep, **options) for port in ports
        }
        # a compiled graph is never run again from Python
        self.grad = (
            torch.is_grad_enabled() and not torch.compiler.is_compiling()
        )
        if self.grad:
            for state in self.states.values():
                state.grad, state.kept = True, {}
            self.thread = threading.get_ident()
            self.first = self.last = 0  # of the graph nodes it made

    def run(self, network: Callable[[Tensor], Any], x: Tensor) -> Any:
        """One pass of a network, whose hooks find this call."""
        if self.grad:
            self.first = torch.autograd._get_sequence_nr()
        _THREAD.stack.append(self)
        try:
            return network(x)
        finally:
            _THREAD.stack.pop()

    def end(self, outputs: Any) -> None:
        """Let the graph keep what a recomputation needs, and no more.

        The call lives as long as the graph does, since nodes of the graph
        hold it; so it holds no tensor that holds them. Only of a call that
        records a graph.
        """
        self.last = torch.autograd._get_sequence_nr()
        for tensor in tensors_in(outputs):
            _hold(tensor.grad_fn, self)
        for state in self.states.values():
            _hold(state.node, self)
            state.over, state.node, state.parts = True, None, None
            if state.apart is None:
                mask, state.decision = state.decision.mask, None
                state.mask = cut(mask)
                if state.crossed:
                    _take_over(mask, state.mask)
        with _LOCK:
            _LIVE.add(self)

    def made(self, number: int) -> bool:
        """Whether a graph node with this sequence number is of this pass."""
        return self.first <= number < self.last


def state_of(port: Any) -> SiteState | None:
    """A site's state in the pass that is running; ``None`` in a dense one.

    The passes are those of this thread: the gated calls, or a recomputation
    inside the backward pass of an earlier call.
    """
    stack = _THREAD.stack
    if stack:
        state = stack[-1].states.get(port.name)
        if state is not None and state.port is port:
            return state
        for call in stack[-2::-1]:
            state = call.states.get(port.name)
            if state is not None and state.port is port:
                return state
    if torch.compiler.is_compiling():
        return None
    node = torch._C._current_autograd_node()
    return None if node is None else _recomputed(port, node)


def cut(tensor: Tensor) -> Tensor:
    """The same values as a leaf, with a gradient of its own."""
    return tensor.detach().requires_grad_(tensor.requires_grad)


def tensors_in(nested: Any) -> Iterator[Tensor]:
    """The tensors of nested tuples, lists and dicts."""
    if isinstance(nested, Tensor):
        yield nested
    elif isinstance(nested, dict):
        yield from tensors_in(list(nested.values()))
    elif isinstance(nested, (list, tuple)):
        for part in nested:
            yield from tensors_in(part)


def take_grad(leaf: Tensor) -> Tensor | None:
    """A leaf's gradient, which starts anew."""
    grad, leaf.grad = leaf.grad, None
    return grad


def _take_over(tensor: Tensor, leaf: Tensor) -> None:
    """Let a tensor have the gradient of its leaf as well."""

    def add(grad: Tensor) -> Tensor:
        more = take_grad(leaf)
        return grad if more is None else grad + more

    if tensor.requires_grad:
        tensor.register_hook(add)


class _Thread(threading.local):
    def __init__(self) -> None:
        self.stack: list[GatedCall] = []
        # the call whose recomputation was seen last
        self.recomputed: weakref.ref | None = None


_THREAD = _Thread()
_LIVE: weakref.WeakSet[GatedCall] = weakref.WeakSet()
_LOCK = threading.Lock()


def _hold(node: Any, call: GatedCall) -> None:
    if node is not None:
        node.metadata[KEY] = call


def _recomputed(port: Any, node: Any) -> SiteState | None:
    """The state of the call whose graph has this node.

    Sequence numbers count the nodes that a thread has made.
    """
    with _LOCK:
        live = list(_LIVE)
    live = [call for call in live if _has(call, port)]
    number = node._sequence_nr()
    calls = [call for call in live if call.made(number)]
    if len(calls) > 1:
        own = threading.get_ident()
        calls = [call for call in calls if call.thread == own]
        if len(calls) != 1:
            raise FGCError(
                f'{port.site.producer} runs again in the backward pass of '
                'one of several forward passes that threads ran at once, and '
                'which is unknown; train in one thread, or without gradient '
                'checkpointing.'
            )
    call = calls[0] if calls else _around(live, number)
    if call is None:
        return None  # the plain network's own backward pass
    _THREAD.recomputed = weakref.ref(call)
    return call.states[port.name]


def _has(call: GatedCall, port: Any) -> bool:
    state = call.states.get(port.name)
    return state is not None and state.port is port


def _around(live: Sequence[GatedCall], number: int) -> GatedCall | None:
    """Of a node that a recomputation made: checkpointing inside another."""
    call = _THREAD.recomputed and _THREAD.recomputed()
    if call is None or call not in live:
        return None
    other = call.thread != threading.get_ident()  # counts on its own
    return call if other or number >= call.last else None
