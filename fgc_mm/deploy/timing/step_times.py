"""Time of every step of a dynamic network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fgc_mm.deploy.dynamic.model import DynamicImageClassifier
from fgc_mm.deploy.dynamic.programs import ExecutableProgram
from fgc_mm.deploy.graph.ir import ALL, GATE, Op

GATES, SITES = 'gates', 'layers of sites'
WHOLE, REST = 'layers without a gate', 'pools, sums, copies'
REPEATS = 3


@torch.no_grad()
def step_times(
    model: DynamicImageClassifier, images: Tensor
) -> list[dict[str, Any]]:
    """Time of every step; empty if the backbone's own modules run.

    Args:
        model: The dynamic model.
        images: (N, 3, H, W).

    Returns:
        ``name``: the layer's path, or a description; ``group``: ``GATES``,
        ``SITES``, ``WHOLE`` or ``REST``; ``ms``: the mean over the images of
        the minimum over ``REPEATS`` runs.
    """
    program = model.program(images[:1])
    if program is None:
        return []
    taken = [program.seconds(image, REPEATS) for image in images.split(1)]
    means = 1e3 * torch.tensor(taken, dtype=torch.float64).mean(0)
    return [
        dict(name=name, group=_group(program, n), ms=float(means[n]))
        for n, name in enumerate(program.names)
        if means[n] > 0  # steps for records only do not run
    ]


def grouped(steps: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Milliseconds of every group, largest first."""
    sums: Counter[str] = Counter()
    for step in steps:
        sums[step['group']] += step['ms']
    return dict(sums.most_common())


def _group(program: ExecutableProgram, number: int) -> str:
    node, name = program.nodes[number], program.names[number]
    if name.startswith(GATE):
        return GATES
    if node.op not in (Op.CONV, Op.LINEAR):
        return REST
    gated = node.reads is not ALL or node.writes is not ALL
    return SITES if gated else WHOLE
