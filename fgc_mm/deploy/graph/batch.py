"""Whether a network mixes the images of a batch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fgc_mm.deploy.graph.capture import CannotCapture, capture
from fgc_mm.deploy.graph.ir import Graph, Node, needed_nodes


def mixes_images(
    backbone: nn.Module, image: Tensor, following: Sequence[nn.Module] = ()
) -> bool:
    """Whether some value of a network depends on several images of a batch.

    A value that is computed image by image has twice as many elements for two
    images as for one; another value, such as the maximum of the whole batch,
    was computed from several images.

    This does not find operations that mix the images but keep their number,
    such as a cumulative sum over the batch, and nothing in a network that
    runs other operations for two images than for one. The arguments are those
    of :func:`capture`.
    """
    try:
        one, two = (
            capture(backbone, images, following)[-1]
            for images in (image, torch.cat([image, image]))
        )
    except CannotCapture:
        return False
    pairs = list(zip(one.nodes, two.nodes))
    if len(one.nodes) != len(two.nodes) or any(a.op != b.op for a, b in pairs):
        return False
    relevant = _computed_from_images(one)
    return any(
        math.prod(b.shape) != 2 * math.prod(a.shape)
        for a, b in pairs
        if a in relevant
    )


def _computed_from_images(graph: Graph) -> set[Node]:
    """Nodes that depend on the images, and that a result depends on."""
    found = {graph.nodes[0]}
    for node in graph.nodes:
        if not found.isdisjoint(node.inputs):
            found.add(node)
    return found & needed_nodes([*graph.outputs, *graph.decided()])
