"""Which layers and gates a loss gives a gradient."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from threading import Lock
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointFunction

from fgc_mm.models.gated_backbone import as_outputs
from fgc_mm.sites.call import tensors
from fgc_mm.sites.eval_mode import eval_mode

# Our own autograd functions, none of which hides a graph.
OWN_FUNCTIONS = 'fgc_mm.functional'
_LOCK = Lock()  # torch's checkpointing is global to the process


def graph_nodes(outputs: Iterable[Tensor]) -> set[Any]:
    """All nodes of the autograd graph of some tensors."""
    found: set[Any] = set()
    waiting = [x.grad_fn for x in outputs if x.grad_fn is not None]
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += [n for n, _ in node.next_functions if n is not None]
    return found


def unread_layers(
    backbone: nn.Module,
    neck_and_head: nn.Module,
    layers: Mapping[str, nn.Module],
    image_shape: tuple[int, ...],
) -> list[str]:
    """Layers of a backbone to which neck and head give no gradient.

    Args:
        backbone: The plain network.
        neck_and_head: Neck and head; takes the backbone's outputs.
        layers: Some of its layers, by name.
        image_shape: (C, H, W) of an image that the backbone accepts.

    Returns:
        Their names; empty if neck or head fail with this image.
    """
    outputs_of: dict[str, list[Tensor]] = {name: [] for name in layers}
    handles = [
        layer.register_forward_hook(
            lambda _, __, output, name=name: outputs_of[name].append(output)
        )
        for name, layer in layers.items()
    ]
    try:
        outputs = _run(backbone, neck_and_head, image_shape)
    except Exception:  # a head may need other inputs
        return []
    finally:
        for handle in handles:
            handle.remove()
    nodes = graph_nodes(outputs)
    return [name for name, out in outputs_of.items() if _unread(out, nodes)]


def _unread(outputs: list[Tensor], nodes: set[Any]) -> bool:
    known = outputs and all(x.grad_fn is not None for x in outputs)
    return bool(known) and not any(x.grad_fn in nodes for x in outputs)


def _run(
    backbone: nn.Module, neck_and_head: nn.Module, image_shape: tuple[int, ...]
) -> list[Tensor]:
    like = next(backbone.parameters())
    image = torch.ones(1, *image_shape).to(like).requires_grad_()
    gpus = [like.device] if like.is_cuda else []
    with (
        eval_mode(backbone),
        eval_mode(neck_and_head),
        _without_checkpointing(),
        torch.random.fork_rng(gpus),
        torch.enable_grad(),
    ):
        # a copy: later operations may be in place
        outputs = as_outputs(backbone(image.clone()))
        return tensors(neck_and_head(outputs))


@contextmanager
def _without_checkpointing() -> Iterator[None]:
    """Run checkpointed parts directly: a reentrant one hides its graph."""

    def apply(run: Callable, _: bool, *inputs: Any) -> Any:
        return run(*inputs)

    with _LOCK:
        CheckpointFunction.apply = apply  # type: ignore[method-assign]
        try:
            yield
        finally:
            del CheckpointFunction.apply  # the inherited method again


def warn_unreached(
    gates: Mapping[str, nn.Module],
    losses: Mapping[str, Tensor],
    regularisers: Iterable[str],
) -> list[str]:
    """Warn in the first training step of gates that would not learn.

    At least one parameter of a gate must get a gradient from a loss that is
    not a regulariser (regularisers open or close channels regardless of their
    use), and every parameter from some loss. A gate without any gradient is
    not reported if the network is recomputed in the backward pass (gradient
    checkpointing), which the graph does not show.

    Args:
        gates: By the name of their site.
        losses: Losses of the step by name, before the backward pass.
        regularisers: Names of those that do not depend on the task.

    Returns:
        Names of the sites in the warning.
    """
    nodes = {
        name: graph_nodes(tensors(loss))
        for name, loss in losses.items()
        if 'loss' in name
    }
    hidden = any(map(_may_hide_graph, set().union(*nodes.values())))
    task = _parameters(v for k, v in nodes.items() if k not in regularisers)
    reached = _parameters(nodes.values())
    learning = {
        name: [id(p) for p in gate.parameters() if p.requires_grad]
        for name, gate in gates.items()
    }
    without_gradient = [
        name
        for name, own in learning.items()
        if own
        and (task.isdisjoint(own) or not reached.issuperset(own))
        and not (hidden and reached.isdisjoint(own))
    ]
    if without_gradient:
        print_log(
            f'The gates of {", ".join(without_gradient)} get no gradient '
            'from the task: only regularisers depend on all of their '
            'parameters, so they learn nothing, and distributed training '
            'may hang; leave these sites out of sites.',
            logger='current',
            level=30,
        )
    return without_gradient


def _may_hide_graph(node: Any) -> bool:
    """Whether a node may contain a graph of its own."""
    function = getattr(type(node), '_forward_cls', None)
    own = OWN_FUNCTIONS
    return function is not None and not function.__module__.startswith(own)


def _parameters(graphs: Iterable[set[Any]]) -> set[int]:
    """Identities of the parameters that graphs depend on."""
    return {
        id(node.variable)
        for nodes in graphs
        for node in nodes
        if hasattr(node, 'variable')
    }
