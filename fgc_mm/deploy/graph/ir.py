"""Intermediate representation of a gated classifier.

Every node is one operation and its result. Shapes are torch's, with a batch
of one image. The semantics of the operations are defined by
:mod:`fgc_mm.deploy.graph.interpreter`.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_unflatten

from fgc_mm.runtime.format import Activation

ALL = None  # channel list of all channels
GATE = 'gate of '  # prefix of the names of a gate's nodes


class Op(enum.Enum):
    """Kinds of operations; the comments name the attributes of a node."""

    IMAGE = 'image'
    CONSTANT = 'constant'  # tensor
    CONV = 'conv'  # weight, bias, stride, padding, dilation, groups
    LINEAR = 'linear'  # weight (C_out, C_in), bias; on the last dimension
    AFFINE = 'affine'  # scale, shift, slope: per channel (dimension dim)
    NORM = 'norm'  # weight, bias, eps, groups; 0: of the last dimension
    UNARY = 'unary'  # act
    BINARY = 'binary'  # math
    POOL = 'pool'  # average, kernel, stride, padding, dilation, outside
    MEAN = 'mean'  # dims, keep
    CONCAT = 'concat'  # dim
    SLICE = 'slice'  # dim, start, stop, step
    SELECT = 'select'  # dim, index
    PAD = 'pad'  # pads: (before, after) of every dimension
    PERMUTE = 'permute'  # dims
    RESHAPE = 'reshape'
    EXPAND = 'expand'
    TAKE = 'take'  # dim, index (an index tensor)
    MATMUL = 'matmul'
    SOFTMAX = 'softmax'  # dim
    ATTENTION = 'attention'  # scale; inputs q, k, v and optionally a bias
    RESIZE = 'resize'  # bilinear, corners, scale
    TOPK = 'topk'  # k, ones
    DECISION = 'decision'  # site; input: its mask
    MASK = 'mask'  # site, dim, positions, factor; inputs x, mask
    CLEAR = 'clear'  # channels that are not in reads become 0
    CALL = 'call'  # function: an operation of torch; output: its index


@dataclass(eq=False)
class Node:
    """One operation.

    Attributes:
        op: Its kind.
        inputs: Nodes whose results it reads.
        shape: Shape of its result, with a batch of one.
        attrs: Attributes of its kind.
        name: Path of its module, if known.
        reads: The channels that it reads, ``ALL`` or a :class:`ChannelList`.
        writes: The channels that it computes.
        channel_dim: The dimension of ``writes``.
        act: Activation applied to its result.
        records_only: Only needed for the gates' records.
    """

    op: Op
    inputs: list[Node]
    shape: tuple[int, ...]
    attrs: dict[str, Any] = field(default_factory=dict)
    name: str = ''
    reads: ChannelList | None = ALL
    writes: ChannelList | None = ALL
    channel_dim: int = 1
    act: Activation = field(default_factory=Activation)
    records_only: bool = False

    def instead(self, op: Op, *inputs: Node, **attrs: Any) -> Node:
        """Another operation, with its name and the shape of its result."""
        return Node(op, list(inputs), self.shape, attrs, self.name)

    def __getattr__(self, name: str) -> Any:
        attrs = self.__dict__.get('attrs')
        if attrs is None or name not in attrs:
            raise AttributeError(name)
        return attrs[name]


@dataclass(eq=False)
class ChannelList:
    """An index list of channels that differs between images.

    Attributes:
        channels: Number of channels that it chooses from.
        decision: The node whose nonzero channels it lists; or ``None``.
        segments: Otherwise the lists that are concatenated, ``(list or ALL,
            repeat, numbers)`` as in :class:`fgc_mm.runtime.format.Join`.
    """

    channels: int
    decision: Node | None = None
    segments: tuple[Segment, ...] = ()

    def numbers(self, values: dict[Node, Tensor]) -> Tensor:
        """The list for one image; (n,) int64.

        Args:
            values: Results of the nodes for that image.
        """
        if self.decision is not None:
            return values[self.decision][0].nonzero().flatten()
        found = []
        for source, repeat, numbers in self.segments:
            table = torch.tensor(numbers)
            if source is not ALL:
                table = table[source.numbers(values)]
            table = table[table >= 0]
            found.append((table[:, None] + torch.arange(repeat)).flatten())
        return torch.cat(found)


Segment = tuple[ChannelList | None, int, tuple[int, ...]]


@dataclass
class SiteValues:
    """Nodes of one site.

    Attributes:
        name: Name of the site.
        decision: Its mask (1, C).
        records: logits, probs and, for gates that scale, saliency.
        why: Why its channels are masked instead of skipped; '' if they are
            skipped.
    """

    name: str
    decision: Node
    records: list[Node]
    why: str = ''


@dataclass
class Graph:
    """The graph of one network.

    Attributes:
        nodes: In execution order; the first is the image.
        outputs: The network's outputs.
        sites: Nodes of every site, in the order of the model's sites.
        structure: Pytree structure of the network's return value.
        none_leaves: Indices of its leaves that are ``None``.
    """

    nodes: list[Node]
    outputs: list[Node]
    sites: list[SiteValues]
    structure: TreeSpec
    none_leaves: tuple[int, ...] = ()

    def copy(self) -> Graph:
        """A graph with its own nodes; tensors are shared."""
        new: dict[Node, Node] = {}
        for node in self.nodes:
            inputs = [new[x] for x in node.inputs]
            new[node] = replace(node, inputs=inputs, attrs=dict(node.attrs))
        sites = [
            SiteValues(s.name, new[s.decision], [new[x] for x in s.records])
            for s in self.sites
        ]
        outputs = [new[x] for x in self.outputs]
        return replace(
            self, nodes=[*new.values()], outputs=outputs, sites=sites
        )

    def decided(self) -> list[Node]:
        """The mask of every site, each followed by its records."""
        return [x for s in self.sites for x in (s.decision, *s.records)]

    def returned(self, tensors: Sequence[Tensor]) -> Any:
        """The outputs in the structure that the network returns."""
        leaves: list[Tensor | None] = list(tensors)
        for place in self.none_leaves:
            leaves.insert(place, None)
        return tree_unflatten(leaves, self.structure)

    def name_gates(self) -> None:
        """Name nodes that only a decision needs after the site of its gate."""
        trunk = needed_nodes(self.outputs, stop=Op.DECISION)
        for site in self.sites:
            own = needed_nodes([site.decision, *site.records]) - trunk
            for node in own:
                node.name = f'{GATE}{site.name}'
            trunk |= own

    def prune(self) -> None:
        """Remove unused nodes; mark those needed by records only."""
        kept = needed_nodes([*self.outputs, *(s.decision for s in self.sites)])
        records = needed_nodes(x for site in self.sites for x in site.records)
        for node in self.nodes:
            node.records_only = node not in kept
        kept |= {*records, self.nodes[0]}
        self.nodes = [x for x in self.nodes if x in kept]


def needed_nodes(roots: Iterable[Node], stop: Op | None = None) -> set[Node]:
    """These nodes and all nodes that they are computed from."""
    found: set[Node] = set()
    stack = list(roots)
    while stack:
        node = stack.pop()
        if node not in found and node.op is not stop:
            found.add(node)
            stack += node.inputs
    return found


def lists_in(channels: ChannelList | None) -> Iterator[Any]:
    """The lists of decisions that a channel list is made from, or is."""
    if channels is ALL:
        return
    if channels.decision is not None:
        yield channels
    for source, *_ in channels.segments:
        yield from lists_in(source)
