"""All steps from a network to a program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from fgc_mm.deploy.graph.capture import CannotCapture, capture
from fgc_mm.deploy.graph.channel_lists import propagate_channel_lists
from fgc_mm.deploy.graph.fuse import fuse
from fgc_mm.deploy.graph.ir import Graph, Node, Op
from fgc_mm.deploy.graph.lower import CannotLower, Lowering
from fgc_mm.deploy.graph.mask_check import constant_mask_problem
from fgc_mm.deploy.graph.simplify import simplify
from fgc_mm.errors import FGCError
from fgc_mm.models import GatedImageClassifier
from fgc_mm.runtime.format import Program
from fgc_mm.sites import GateSite


class CapturedNetwork:
    """A captured network, and the graphs made from it.

    Args:
        backbone: See :func:`fgc_mm.deploy.graph.capture.capture`.
        image: (1, 3, H, W).
        following: Modules that are applied to its output.

    Raises:
        CannotCapture: The network cannot be captured.
    """

    def __init__(
        self,
        backbone: nn.Module,
        image: Tensor,
        following: Sequence[nn.Module] = (),
    ) -> None:
        self._captured = capture(backbone, image, following)
        self._graphs: dict[tuple[bool, bool], Graph] = {}

    def graph(self, whole: bool = True, gated: bool = True) -> Graph:
        """The simplified graph of the network, with masks.

        Args:
            whole: If false, without the modules after the backbone.
            gated: If false, without gates.
        """
        key = (whole, gated)
        if key not in self._graphs:
            graph = self._captured[-1 if whole else 0].copy()
            if not gated:
                _remove_gates(graph)
            simplify(graph)
            self._graphs[key] = graph
        return self._graphs[key]


def modules_after(model: nn.Module) -> list[nn.Module]:
    """The neck and the head of a classifier, if it has them."""
    parts = (getattr(model, name, None) for name in ('neck', 'head'))
    return [part for part in parts if part is not None]


def network_graph(
    backbone: nn.Module, image: Tensor, following: Sequence[nn.Module] = ()
) -> Graph:
    """The graph of a network, see :class:`CapturedNetwork`."""
    return CapturedNetwork(backbone, image, following).graph()


def _remove_gates(graph: Graph) -> None:
    """Replace every mask by its input."""
    graph.sites = []
    for node in graph.nodes:
        node.inputs = [_unmasked(x) for x in node.inputs]
    graph.outputs = [_unmasked(x) for x in graph.outputs]


def _unmasked(node: Node) -> Node:
    while node.op is Op.MASK:
        node = node.inputs[0]
    return node


def listed_graph(
    graph: Graph,
    sites: Sequence[GateSite] = (),
    dense: Mapping[str, str] | None = None,
) -> Graph:
    """A copy of a graph that computes open channels only.

    Args:
        graph: From :func:`network_graph`.
        sites: The model's sites.
        dense: Sites that compute all channels, and why.
    """
    new = graph.copy()
    propagate_channel_lists(new, sites, dense or {})
    fuse(new)
    return new


def program_of(model: GatedImageClassifier, image: Tensor) -> Program:
    """Compile a classifier to a program that does not need torch.

    Args:
        model: A gated classifier; it is not changed.
        image: (1, 3, H, W) of the size that the program is for.

    Returns:
        The program. Its outputs are the logits, then for every site the
        gate's logits and mask, which are computed if a run requests
        decisions.

    Raises:
        FGCError: The model is on an accelerator, its weights or the image
            are not float32, it cannot be captured, or the runtime does not
            have one of its operations.
    """
    weight = next(model.parameters())
    if weight.device.type != 'cpu':
        raise FGCError(
            f'the model is on {weight.device}, but a program is made of '
            'weights in main memory; move it there: model.cpu().'
        )
    for what, x in (('weights', weight), ('an image', image)):
        if x.dtype != torch.float32:
            raise FGCError(
                f'{what} of {x.dtype} cannot become a program, which computes '
                'in float32; give model.float() and image.float().'
            )
    try:
        graph = network_graph(model.backbone, image, modules_after(model))
        listed = listed_graph(graph, model.backbone.sites)
        problem = constant_mask_problem(listed, model, model.backbone, image)
        if problem:
            raise CannotCapture(f'its outputs differ: {problem}')
        program = Lowering(listed, calls=False).program()
    except (CannotCapture, CannotLower) as error:
        raise FGCError(
            f'the network cannot run without torch, since {error}; use '
            'fgc_mm.deploy.to_dynamic, which calls torch for that.'
        ) from error
    count = len(listed.outputs)
    decided = dict(zip(listed.decided(), program.outputs[count:]))
    program.outputs[count:] = [
        decided[x] for s in listed.sites for x in (s.records[0], s.decision)
    ]
    return program
