"""State of one gated forward pass, kept outside the modules.

Several threads may run one model at the same time, so a :class:`GatedCall`
holds the state of a pass, not the model's hooks and layers. Each thread has a
stack of the calls that it is running, the innermost last.
"""

import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fgc_mm.errors import FGCError

KEY = 'fgc_mm.call'  # in the metadata of autograd nodes


class SiteState:
    """State of one site in one call.

    Attributes:
        hooks: The site's hooks.
        keep: Whether the activation before the gate is recorded.
        grad: Whether the call records an autograd graph.
        forward_done: The forward pass has returned, so a hook that reads the
            state now runs in a recomputation during the backward pass.
        decision: The gate's output.
        parts: The activations recorded so far, one part per consumer.
        masked_at_end: Whether the output at the end of the branch was masked.
        node: The autograd node that made the producer's input.
        mask: (N, C) the decision's mask, detached; used by recomputations.
        detached_gate: See :mod:`fgc_mm.sites.recompute`; ``None``: the
            decision is part of the autograd graph.
        draws: The random numbers of a decision that may be recomputed, a
            :class:`fgc_mm.sites.recompute.GateDraws`, or ``None``.
        leaves: For each layer, the leaf of its recorded activation.
        used_without_graph: Whether a consumer ran without autograd although
            the gate ran with it.
    """

    forward_done = False
    masked_at_end = False
    used_without_graph = False
    decision: Any = None
    node: Any = None
    mask: Tensor  # set when the forward pass ends
    detached_gate: Any = None
    draws: Any = None

    def __init__(self, hooks: Any, keep: bool, grad: bool) -> None:
        self.hooks = hooks
        self.keep = keep
        self.grad = grad
        self.leaves: dict[Any, Tensor] = {}
        self.parts: list[tuple[Tensor, Tensor]] = []


class GatedCall:
    """The states of all sites in one forward pass.

    Args:
        site_hooks: The model's gate hooks, one per site, in order.
        keep: Whether activations are recorded.

    Attributes:
        states: By the site's name.
        grad: Whether autograd records the pass, so that parts of it may be
            recomputed.
    """

    def __init__(self, site_hooks: Sequence[Any], keep: bool) -> None:
        # a compiled graph is not recomputed by Python code
        grad = torch.is_grad_enabled() and not torch.compiler.is_compiling()
        self.grad = grad
        self.states = {
            hooks.name: SiteState(hooks, keep, grad) for hooks in site_hooks
        }
        if grad:
            self.thread = threading.get_ident()
            self.first = self.last = 0  # sequence numbers of its nodes

    def run(self, network: Callable[[Tensor], Any], x: Tensor) -> Any:
        """Run a network whose hooks use this call."""
        if self.grad:
            self.first = torch.autograd._get_sequence_nr()
        _THREAD.stack.append(self)
        try:
            return network(x)
        finally:
            _THREAD.stack.pop()

    def finish(self, outputs: Any) -> None:
        """Attach the call to the autograd graph; drop unneeded tensors.

        Autograd nodes hold the call, so it lives as long as the graph; hence
        it must hold no tensor that refers to these nodes. Only for a call
        that records a graph.
        """
        self.last = torch.autograd._get_sequence_nr()
        for tensor in tensors(outputs):
            _attach_call(tensor.grad_fn, self)
        for state in self.states.values():
            _attach_call(state.node, self)
            state.forward_done, state.node, state.parts = True, None, []
            if state.detached_gate is None:
                mask, state.decision = state.decision.mask, None
                state.mask = detached_leaf(mask)
                if state.used_without_graph:
                    _add_leaf_grad(mask, state.mask)
        with _LOCK:
            _LIVE.add(self)

    def owns_node(self, number: int) -> bool:
        """Whether a node with this sequence number is from this pass."""
        return self.first <= number < self.last


def state_of(hooks: Any) -> SiteState | None:
    """A site's state in the running pass; ``None`` in a dense pass.

    The pass is a gated call of this thread, or a recomputation in the
    backward pass of an earlier call.
    """
    for call in _THREAD.stack[::-1]:
        if _contains(call, hooks):
            return call.states[hooks.name]
    if torch.compiler.is_compiling():
        return None
    node = torch._C._current_autograd_node()
    return None if node is None else _state_of_recomputation(hooks, node)


def detached_leaf(tensor: Tensor) -> Tensor:
    """The same values as a leaf tensor with a gradient of its own."""
    return tensor.detach().requires_grad_(tensor.requires_grad)


def tensors(nested: Any) -> list[Tensor]:
    """All tensors in nested tuples, lists and mappings."""
    if isinstance(nested, Tensor):
        return [nested]
    if isinstance(nested, Mapping):
        nested = list(nested.values())
    if not isinstance(nested, (tuple, list)):
        return []
    return [tensor for part in nested for tensor in tensors(part)]


def pop_grad(leaf: Tensor) -> Tensor | None:
    """Return a leaf's gradient and reset it."""
    grad, leaf.grad = leaf.grad, None
    return grad


def _add_leaf_grad(tensor: Tensor, leaf: Tensor) -> None:
    """Add the gradient of a leaf to that of the tensor it was made from."""

    def add(grad: Tensor) -> Tensor:
        more = pop_grad(leaf)
        return grad if more is None else grad + more

    if tensor.requires_grad:
        tensor.register_hook(add)


class _Thread(threading.local):
    def __init__(self) -> None:
        self.stack: list[GatedCall] = []
        # the call of the most recent recomputation
        self.recomputed: weakref.ref | None = None


_THREAD = _Thread()
_LIVE: weakref.WeakSet[GatedCall] = weakref.WeakSet()
_LOCK = threading.Lock()


def _attach_call(node: Any, call: GatedCall) -> None:
    if node is not None:
        node.metadata[KEY] = call


def _state_of_recomputation(hooks: Any, node: Any) -> SiteState | None:
    """The state of the call whose graph contains this node.

    Sequence numbers count the nodes that one thread has made.
    """
    with _LOCK:
        live_calls = list(_LIVE)
    live_calls = [call for call in live_calls if _contains(call, hooks)]
    number = node._sequence_nr()
    calls = [call for call in live_calls if call.owns_node(number)]
    if len(calls) > 1:
        thread = threading.get_ident()
        calls = [call for call in calls if call.thread == thread]
        if len(calls) != 1:
            raise FGCError(
                f'{hooks.site.producer} is recomputed in the backward pass of '
                'one of several forward passes that ran in parallel threads, '
                'and it is unknown which; train in one thread, or without '
                'gradient checkpointing.'
            )
    call = calls[0] if calls else _enclosing_call(live_calls, number)
    if call is None:
        return None  # backward pass of the dense network
    _THREAD.recomputed = weakref.ref(call)
    return call.states[hooks.name]


def _contains(call: GatedCall, hooks: Any) -> bool:
    state = call.states.get(hooks.name)
    return state is not None and state.hooks is hooks


def _enclosing_call(
    live_calls: Sequence[GatedCall], number: int
) -> GatedCall | None:
    """The call of a node made by a recomputation (nested checkpointing)."""
    call = _THREAD.recomputed() if _THREAD.recomputed else None
    if call is None or call not in live_calls:
        return None
    # another thread numbers its nodes separately
    other = call.thread != threading.get_ident()
    return call if other or number >= call.last else None
