"""A network without gates in the compiled runtime."""

from collections.abc import Callable
from functools import partial

import torch
from mmpretrain.models.classifiers import ImageClassifier
from torch import Tensor

from fgc_mm.deploy.dynamic.calibrate import choose_single_threaded
from fgc_mm.deploy.dynamic.programs import ExecutableProgram, KernelProgram
from fgc_mm.deploy.graph.network import (
    listed_graph,
    modules_after,
    network_graph,
)


def runtime_forward(
    model: ImageClassifier, image: Tensor, bfloat16: bool = False
) -> Callable[[Tensor], Tensor]:
    """Images in, logits out.

    Args:
        model: A classifier without gates.
        image: (1, 3, H, W), for the choice of the steps that run on one
            thread.
        bfloat16: Whether convs multiply in bfloat16 where that is faster.
    """
    graph = network_graph(model.backbone, image, modules_after(model))
    program = KernelProgram(listed_graph(graph), bfloat16)
    run = partial(_logits, program)
    if torch.get_num_threads() > 1:
        choose_single_threaded(
            program, image, program.set_single_threaded, partial(run, image)
        )
    return run


def _logits(program: ExecutableProgram, images: Tensor) -> Tensor:
    logits: Tensor = program.run(images, decisions=False)[0]
    return logits
