"""Comparing a graph that computes open channels only with the masked model."""

from __future__ import annotations

from torch import Tensor

from fgc_mm.deploy.changed_masks import MASK_PATTERNS, constant_masks
from fgc_mm.deploy.comparing import difference, finite_outputs, model_output
from fgc_mm.deploy.graph.interpreter import interpret
from fgc_mm.deploy.graph.ir import Graph
from fgc_mm.models import GatedBackbone, GatedImageClassifier
from fgc_mm.sites.eval_mode import eval_mode


def constant_mask_problem(
    graph: Graph,
    model: GatedImageClassifier | GatedBackbone,
    backbone: GatedBackbone,
    image: Tensor,
) -> str:
    """How the outputs differ with constant masks; '' if they do not.

    The gates may open all channels for some images, so constant masks are
    tried at every site. The graph runs in its interpreter, where channels
    that are not computed are nan.

    Args:
        graph: Made from the model, with channel lists.
        model: The masked model.
        backbone: Its backbone, or the model itself.
        image: (1, 3, H, W).
    """
    for name, opened in MASK_PATTERNS.items():
        with eval_mode(model), constant_masks(backbone, opened):
            want = finite_outputs(lambda: model_output(model, image)[0])
        if want is None:
            continue
        masks = [
            opened(site.channels, number)[None].float()
            for number, site in enumerate(backbone.sites)
        ]
        values = interpret(graph, image, masks)
        problem = difference(want, [values[node] for node in graph.outputs])
        if problem:
            return f'{problem} ({name} mask)'
    return ''
