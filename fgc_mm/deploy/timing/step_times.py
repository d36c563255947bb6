"""Time of every step of a dynamic network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fgc_mm.deploy.dynamic.model import DynamicImageClassifier
from fgc_mm.deploy.dynamic.programs import ExecutableProgram
from fgc_mm.deploy.graph.ir import ALL, GATE, Op

GATES, SITES = 'gates', 'layers of sites'
WHOLE, REST = 'layers without a gate', 'pools, sums, copies'


@dataclass
class StepTime:
    """Time of one step of a program.

    Attributes:
        name: The layer's path, or a description.
        group: ``GATES``, ``SITES``, ``WHOLE`` or ``REST``.
        ms: Mean over the images of the minimum over the repeats.
    """

    name: str
    group: str
    ms: float


@torch.no_grad()
def step_times(
    model: DynamicImageClassifier, images: Tensor, repeats: int = 3
) -> list[StepTime]:
    """Time of every step; empty if the backbone's own modules run.

    Args:
        model: The dynamic model.
        images: (N, 3, H, W).
        repeats: Number of runs per image.
    """
    program = model.program(images[:1])
    if program is None:
        return []
    taken = [
        torch.tensor(program.seconds(image, repeats))
        for image in images.split(1)
    ]
    means = 1e3 * torch.stack(taken).double().mean(0)
    return [
        StepTime(name, _group(program, number), float(means[number]))
        for number, name in enumerate(program.names)
        if means[number] > 0  # steps for records only do not run
    ]


def grouped(times: Sequence[StepTime]) -> dict[str, float]:
    """Milliseconds of every group, largest first."""
    sums: dict[str, float] = {}
    for time in times:
        sums[time.group] = sums.get(time.group, 0.0) + time.ms
    return dict(sorted(sums.items(), key=lambda item: -item[1]))


def _group(program: ExecutableProgram, number: int) -> str:
    node, name = program.nodes[number], program.names[number]
    if name.startswith(GATE):
        return GATES
    if node.op not in (Op.CONV, Op.LINEAR):
        return REST
    gated = node.reads is not ALL or node.writes is not ALL
    return SITES if gated else WHOLE
