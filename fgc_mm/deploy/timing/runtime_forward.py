"""A network without gates in the compiled runtime."""

from collections.abc import Callable, Collection
from functools import partial

import torch
from mmpretrain.models.classifiers import ImageClassifier
from torch import Tensor

from fgc_mm.deploy.dynamic.programs import ExecutableProgram, KernelProgram
from fgc_mm.deploy.graph.network import (
    listed_graph,
    modules_after,
    network_graph,
)
from fgc_mm.deploy.timing.interleaved_times import interleaved_times

REPEATS, ROUNDS = 5, 10


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
    if torch.get_num_threads() > 1:
        choose_single_threaded(program, image)
    return partial(_logits, program)


def choose_single_threaded(program: ExecutableProgram, image: Tensor) -> None:
    """The fastest of three choices, as the dynamic network's calibration.

    No step runs on one thread, all do, or those that are faster so.
    """
    names, seconds = program.names, []
    for alone in ((), names):
        program.set_single_threaded(alone)
        seconds.append(program.seconds(image, REPEATS))
    faster = [n for n, many, one in zip(names, *seconds) if one < many]
    choices = dict(none=[], all=names, faster=faster)

    def run(alone: Collection[str], image: Tensor) -> None:
        program.set_single_threaded(alone)
        _logits(program, image)

    runs = {key: partial(run, alone) for key, alone in choices.items()}
    times = interleaved_times(runs, [image], ROUNDS)
    best = min(choices, key=lambda key: times[key].median)
    program.set_single_threaded(choices[best])


def _logits(program: ExecutableProgram, images: Tensor) -> Tensor:
    logits: Tensor = program.run(images, decisions=False)[0]
    return logits
