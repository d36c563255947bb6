"""Running a graph in the compiled runtime or in plain torch."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from fgc_mm.deploy.graph.interpreter import interpret, run_node
from fgc_mm.deploy.graph.ir import Graph, Node
from fgc_mm.deploy.graph.lower import Lowering
from fgc_mm.runtime.format import encode
from fgc_mm.runtime.model import Model
from fgc_mm.sites import GateRecord, GateSite

# for every site the mask (N, C), then logits, probs and, for gates that
# scale, saliency, (N, G)
Decisions = list[list[Tensor]]
Outputs = Any  # as the network returns them


class ExecutableProgram:
    """Runs a graph, image by image.

    Args:
        graph: A graph with channel lists, see
            :func:`fgc_mm.deploy.graph.network.listed_graph`.

    Attributes:
        graph: The same.
        names: Name of every step: the path of a layer, or ``'gate of SITE'``.
        nodes: The node of every step.
        fallbacks: Names of steps that torch computes.
    """

    names: list[str]
    nodes: list[Node]
    fallbacks: list[str]

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.fallbacks = []

    @property
    def why_dense(self) -> dict[str, str]:
        """Sites that compute all channels, and why."""
        return {s.name: s.why for s in self.graph.sites if s.why}

    def run(
        self, images: Tensor, decisions: bool = True
    ) -> tuple[Outputs, Decisions]:
        """Outputs of the network for (N, 3, H, W), and gate decisions."""
        raise NotImplementedError

    def seconds(self, image: Tensor, repeats: int) -> list[float]:
        """Seconds of every step for one image, minimum over the repeats."""
        raise NotImplementedError

    def set_single_threaded(self, names: Collection[str]) -> None:
        """Set the steps that run on one thread each."""

    def _split_outputs(
        self, outputs: Sequence[Tensor]
    ) -> tuple[Outputs, Decisions]:
        count = len(self.graph.outputs)
        found, more = list(outputs[:count]), list(outputs[count:])
        decisions: Decisions = []
        for site in self.graph.sites if more else ():
            size = 1 + len(site.records)
            decisions.append(more[:size])
            more = more[size:]
        return self.graph.returned(found), decisions

    def _wanted(self, decisions: bool) -> list[Node]:
        more = self.graph.decided() if decisions else []
        return [*self.graph.outputs, *more]


class KernelProgram(ExecutableProgram):
    """A graph compiled for the runtime, run in one call.

    Args:
        graph: As of :class:`ExecutableProgram`.
        bfloat16: Whether convs multiply in bfloat16 where that is faster.

    Attributes:
        build: Name of the runtime's build.
        precision: ``'float32'`` or ``'bfloat16'``.

    Raises:
        LibraryError: The runtime cannot be compiled.
    """

    def __init__(self, graph: Graph, bfloat16: bool = False) -> None:
        super().__init__(graph)
        lowering = Lowering(graph)
        program = lowering.program()
        program.bfloat16 = bfloat16
        self.names, self.nodes = program.names, lowering.out.nodes
        self.fallbacks = lowering.fallbacks
        self._model = Model.from_bytes(
            encode(program), functions=lowering.functions
        )
        self.build = self._model.build
        self.precision = self._model.precision
        self._shapes = {
            decisions: [node.shape[1:] for node in self._wanted(decisions)]
            for decisions in (False, True)
        }

    def run(
        self, images: Tensor, decisions: bool = True
    ) -> tuple[Outputs, Decisions]:
        images = images.detach().to(torch.float32).contiguous()
        self._model.check_shape(images.shape)
        count = images.shape[0]
        found = [
            torch.empty((count, *shape), dtype=torch.float32, device='cpu')
            for shape in self._shapes[decisions]
        ]
        self._model.run_at(
            images.data_ptr(),
            count,
            [x.data_ptr() for x in found],
            decisions,
            torch.get_num_threads(),
        )
        return self._split_outputs(found)

    def seconds(self, image: Tensor, repeats: int) -> list[float]:
        taken = self._model.profile(
            image[0].contiguous().numpy(),
            repeats,
            threads=torch.get_num_threads(),
        )
        return [seconds for _, seconds in taken]

    def set_single_threaded(self, names: Collection[str]) -> None:
        chosen = set(names)
        self._model.set_single_threaded([n in chosen for n in self.names])


class TorchProgram(ExecutableProgram):
    """A graph run in plain torch, which gathers weights of open channels."""

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph)
        self.nodes = graph.nodes
        self.names = [node.name or node.op.value for node in graph.nodes]

    @torch.no_grad()
    def run(
        self, images: Tensor, decisions: bool = True
    ) -> tuple[Outputs, Decisions]:
        wanted = self._wanted(decisions)
        with torch.autocast('cpu', enabled=False):
            rows = [
                interpret(self.graph, one, poison=False, records=decisions)
                for one in images.split(1)
            ]
        return self._split_outputs(
            [torch.cat([values[node] for values in rows]) for node in wanted]
        )

    @torch.no_grad()
    def seconds(self, image: Tensor, repeats: int) -> list[float]:
        least = [float('inf')] * len(self.nodes)
        for _ in range(repeats):
            values = {self.nodes[0]: image}
            for number, node in enumerate(self.nodes):
                start = time.perf_counter()
                if node not in values:
                    values[node] = run_node(node, values, poison=False)
                taken = time.perf_counter() - start
                least[number] = min(least[number], taken)
        return least


def records_of(
    sites: Sequence[GateSite], decisions: Decisions
) -> list[GateRecord]:
    """Records like those of :meth:`GatedBackbone.forward_gated`."""
    return [
        GateRecord(site, None, logits, probs, mask, *saliency)
        for site, (mask, logits, probs, *saliency) in zip(
            sites, decisions, strict=True
        )
    ]
