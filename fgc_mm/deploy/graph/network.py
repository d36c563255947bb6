"""From a network to a program, all steps in their order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from fgc_mm.deploy.graph.capture import CannotCapture, capture
from fgc_mm.deploy.graph.fuse import fuse
from fgc_mm.deploy.graph.ir import Graph
from fgc_mm.deploy.graph.lists import list_channels
from fgc_mm.deploy.graph.lower import CannotLower, Lowering
from fgc_mm.deploy.graph.simplify import simplify
from fgc_mm.errors import FGCError
from fgc_mm.models import GatedImageClassifier
from fgc_mm.runtime.format import Program
from fgc_mm.sites import GateSite


def network_graph(
    backbone: nn.Module,
    image: Tensor,
    behind: Sequence[nn.Module] = (),
    gated: bool = True,
) -> Graph:
    """A network as a graph, simplified, its masks still in it.

    Args:
        backbone: See :func:`fgc_mm.deploy.graph.capture.capture`.
        image: (1, 3, H, W).
        behind: Modules that read what it returns.
        gated: Else a gated backbone without its gates.

    Raises:
        CannotCapture: It is no graph.
    """
    graph = capture(backbone, image, behind, gated)
    simplify(graph)
    return graph


def listed_graph(
    graph: Graph,
    sites: Sequence[GateSite] = (),
    dense: Mapping[str, str] | None = None,
) -> Graph:
    """A copy that computes open channels only.

    Args:
        graph: Of :func:`network_graph`.
        sites: The model's.
        dense: Sites that compute all channels, and why.
    """
    new = graph.copy()
    list_channels(new, sites, dense or {})
    fuse(new)
    return new


def program_of(model: GatedImageClassifier, image: Tensor) -> Program:
    """A classifier as a program that needs no torch.

    Args:
        model: A gated classifier; it stays as it is.
        image: (1, 3, H, W) of the size that the program is for.

    Returns:
        Its outputs are the logits, then for every site the gate's logits and
        its mask, which a run gives that asks for decisions.

    Raises:
        FGCError: It does something that is no graph, or that the runtime
            has no op for.
    """
    behind = [model.neck, model.head] if model.with_neck else [model.head]
    try:
        graph = network_graph(model.backbone, image, behind)
        listed = listed_graph(graph, model.backbone.sites)
        program = Lowering(listed, calls=False).program()
    except (CannotCapture, CannotLower) as error:
        raise FGCError(
            f'the network cannot run without torch, since {error}; use '
            'fgc_mm.deploy.to_dynamic, which calls torch for that.'
        ) from error
    program.outputs = _logits_and_masks(listed, program.outputs)
    return program


def _logits_and_masks(graph: Graph, outputs: list[int]) -> list[int]:
    """Without the other records of sites."""
    count = len(graph.outputs)
    found, more = outputs[:count], outputs[count:]
    for site in graph.sites:
        mask, logits = more[:2]
        found += [logits, mask]
        more = more[1 + len(site.records) :]
    return found
