"""Propagation of channel lists: computing and reading open channels only.

Every channel of a value either must always be computed, or belongs to a
channel of a site. Before the site's mask only the site's consumers read it,
so it need not be computed if it is closed. After the mask a closed channel
counts as 0: its memory is not read, or is cleared first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import zip_longest

import torch
from torch import Tensor

from fgc_mm.deploy.graph.editing import Editor
from fgc_mm.deploy.graph.interpreter import MOVES, RUN, activate
from fgc_mm.deploy.graph.ir import ALL, ChannelList, Graph, Node, Op, Segment
from fgc_mm.runtime.format import Act, Math
from fgc_mm.sites import GateSite

NO_SITE = -1  # instead of a site: the channel must always be computed


@dataclass
class ChannelOwners:
    """The sites that the channels of a value belong to.

    Attributes:
        dim: Dimension of the channels.
        site: (X,) for every channel the index of a site, or ``NO_SITE``.
        channel: (X,) the index of that site's channel.
        zero: (X,) whether it counts as 0 if it is closed.
    """

    dim: int
    site: Tensor
    channel: Tensor
    zero: Tensor

    @classmethod
    def unowned(cls, dim: int, size: int) -> ChannelOwners:
        site = torch.full((size,), NO_SITE)
        return cls(dim, site, torch.zeros_like(site), site != NO_SITE)

    @property
    def has_zero(self) -> bool:
        return bool(self.zero.any())

    def sites(self) -> list[int]:
        return sorted({*self.site.tolist()} - {NO_SITE})

    def sites_not_zeroed(self) -> list[int]:
        """Sites with closed channels that do not count as 0."""
        return sorted({*self.site[~self.zero].tolist()} - {NO_SITE})

    def same(self, other: ChannelOwners) -> bool:
        return (
            self.dim == other.dim
            and torch.equal(self.site, other.site)
            and torch.equal(self.channel, other.channel)
            and torch.equal(self.zero, other.zero)
        )

    def at(self, numbers: Tensor, dim: int) -> ChannelOwners:
        """Owners of a value that has these channels; -1: no site."""
        there = numbers >= 0
        site = torch.where(there, self.site[numbers], torch.tensor(NO_SITE))
        zero = self.zero[numbers] & there
        return ChannelOwners(dim, site, self.channel[numbers], zero)


class NeedsAllChannels(Exception):
    """Another node needs all channels of some sites; the text says which."""

    def __init__(self, sites: Sequence[int], why: str) -> None:
        super().__init__(why)
        self.sites = sites


def propagate_channel_lists(
    graph: Graph, sites: Sequence[GateSite], dense: Mapping[str, str]
) -> None:
    """Make every operation compute and read open channels only.

    Args:
        graph: Captured and simplified. Changed in place: nodes get channel
            lists, masks become products or are removed, and
            :attr:`SiteValues.why` is set for sites that compute all channels.
        sites: The model's sites.
        dense: Sites that must compute all channels, and why.
    """
    why = {
        number: dense[site.name]
        for number, site in enumerate(sites)
        if site.name in dense
    }
    while True:
        try:
            propagation = _ChannelPropagation(graph, sites, why)
            propagation.run()
            break
        except NeedsAllChannels as error:
            new = [n for n in error.sites if n not in why]
            why.update(dict.fromkeys(new, str(error)))
    propagation.apply()
    for number, values in propagation.decisions.items():
        values.why = why.get(number, '')


class _ChannelPropagation:
    """One attempt, with some sites that compute all channels."""

    def __init__(
        self, graph: Graph, sites: Sequence[GateSite], dense: Mapping[int, str]
    ) -> None:
        self.graph, self.sites, self.dense = graph, sites, dense
        # by the site's index; without sites whose gate did not run
        self.decisions = {x.decision.site: x for x in graph.sites}
        self.order = {node: n for n, node in enumerate(graph.nodes)}
        self.owners: dict[Node, ChannelOwners] = {}
        # (reader, value) to clear; None: the value leaves the network
        self.cleared: list[tuple[Node | None, Node]] = []
        self.reads: dict[Node, ChannelOwners] = {}
        self.producers = self._producers()
        self._lists: dict[tuple, ChannelList] = {}

    def _producers(
        self,
    ) -> dict[str, list[tuple[int, tuple[int, ...] | None]]]:
        """The layers that write sites' channels, by path."""
        producers: dict[str, list] = {}
        for number in self.decisions:
            if number not in self.dense:
                for layer in self.sites[number].outputs:
                    found = producers.setdefault(layer.path, [])
                    found.append((number, layer.positions))
        return producers

    def run(self) -> None:
        """Determine the owners of every value."""
        for node in self.graph.nodes:
            owners = self._owners(node)
            if owners is not None and owners.sites():
                self.owners[node] = owners
        records = [x for site in self.graph.sites for x in site.records]
        for node in [*self.graph.outputs, *records]:
            owners = self.owners.get(node)
            if owners is not None:
                self._require_all(owners, 'its channels leave the network')
                self.cleared.append((None, node))

    def _owners(self, node: Node) -> ChannelOwners | None:
        if node.op is Op.MASK:
            return self._mask_owners(node, self.owners.get(node.inputs[0]))
        known = [self.owners[x] for x in node.inputs if x in self.owners]
        if not known:
            return self._producer_owners(node)
        rule = RULES.get(node.op, _ChannelPropagation._unknown)
        owners = rule(self, node, known[0])
        if not isinstance(owners, str):
            return owners
        for value in node.inputs:  # its closed channels must be cleared
            if value in self.owners:
                self._require_all(
                    self.owners[value],
                    owners or f'{node.name} needs zeros for its channels',
                )
                self.cleared.append((node, value))
        return self._producer_owners(node)

    def _producer_owners(self, node: Node) -> ChannelOwners | None:
        """Owners of the result of a layer that writes channels of sites."""
        if (
            node.op not in (Op.CONV, Op.LINEAR)
            or node.name not in self.producers
        ):
            return None
        dim = 1 if node.op is Op.CONV else len(node.shape) - 1
        size = node.shape[dim]
        grouped = node.op is Op.CONV and node.groups > 1
        if grouped and node.groups != node.inputs[0].shape[1]:
            sites = [number for number, _ in self.producers[node.name]]
            raise NeedsAllChannels(
                sites, f'{node.name} has {node.groups} groups'
            )
        owners = ChannelOwners.unowned(dim, size)
        for number, positions in self.producers[node.name]:
            decision = self.decisions[number].decision
            if self.order[decision] > self.order[node]:
                raise NeedsAllChannels(
                    [number], f'{node.name} runs before the gate'
                )
            numbers = _positions(positions, size)
            if len(numbers) != size:
                raise NeedsAllChannels(
                    [number], f'{node.name} has another number of channels'
                )
            is_owned = numbers >= 0
            owners.site[is_owned] = number
            owners.channel[is_owned] = numbers[is_owned]
        return owners

    def _mask_owners(
        self, node: Node, owners: ChannelOwners | None
    ) -> ChannelOwners:
        """Owners of a mask's result, which is 0 where the site is closed."""
        number, size = node.site, node.shape[node.dim]
        numbers = _positions(node.positions, size)
        is_owned = numbers >= 0
        new = ChannelOwners.unowned(node.dim, size)
        if owners is not None and owners.dim != node.dim:
            self._require_all(
                owners, f'{node.name} has channels in another dimension'
            )
        elif owners is not None:
            new = deepcopy(owners)
        others = (new.site != NO_SITE) & (new.site != number)
        if bool((others & is_owned).any()):
            # channels that the other site closes must be 0: this one may
            # open them
            self._require_all(new, f'{node.name} is masked by two sites')
            self.cleared.append((node, node.inputs[0]))
            new = ChannelOwners.unowned(node.dim, size)
        new.site[is_owned], new.channel[is_owned] = number, numbers[is_owned]
        new.zero[is_owned] = True
        return new

    def _require_all(self, owners: ChannelOwners, why: str) -> None:
        skipped = [n for n in owners.sites_not_zeroed() if n not in self.dense]
        if skipped:
            raise NeedsAllChannels(skipped, why)

    # the rules return the owners of a node, or why it reads whole values

    def _unknown(self, node: Node, _: ChannelOwners) -> str:
        return f'{node.op.value} reads all channels'

    def _product(
        self, node: Node, owners: ChannelOwners
    ) -> ChannelOwners | str | None:
        """Owners of a conv or linear layer; it reads a list or all."""
        dim = 1 if node.op is Op.CONV else len(node.inputs[0].shape) - 1
        groups = node.attrs.get('groups', 1)
        if groups > 1 and groups == node.inputs[0].shape[1]:
            return self._depthwise(node, owners)
        if owners.dim != dim or groups > 1:
            return f'{node.name} reads all channels'
        self._require_all(owners, f'{node.name} reads channels without a mask')
        self.reads[node] = owners
        return self._producer_owners(node)

    def _depthwise(
        self, node: Node, owners: ChannelOwners
    ) -> ChannelOwners | str:
        multiple = node.shape[1] // node.groups
        if owners.has_zero and node.bias is not None:
            return ''
        numbers = torch.arange(len(owners.site))
        return owners.at(numbers.repeat_interleave(multiple), 1)

    def _channelwise(
        self, node: Node, owners: ChannelOwners
    ) -> ChannelOwners | str:
        """Owners of an operation that is applied to each channel."""
        if node.op is Op.AFFINE and node.dim != owners.dim:
            return f'{node.name} mixes channels'
        if node.op is Op.PAD and node.pads[owners.dim] != (0, 0):
            return self._moved(node, owners)
        if node.op is Op.MEAN and owners.dim in node.dims:
            return 'a mean over channels is taken'
        if owners.has_zero and not _keeps_zero(node):
            return ''
        dim = owners.dim
        if node.op is Op.MEAN and not node.keep:
            dim -= sum(d < dim for d in node.dims)
        return replace(owners, dim=dim)

    def _binary(
        self, node: Node, owners: ChannelOwners
    ) -> ChannelOwners | str:
        first, second = map(self.owners.get, node.inputs)
        if first is not None and second is not None:
            if not first.same(second):
                return 'they are combined with other channels'
            if first.has_zero and node.math == Math.DIV:
                return ''
            return first
        value = node.inputs[0 if first is not None else 1]
        dim = owners.dim + len(node.shape) - len(value.shape)
        if len(owners.site) != node.shape[dim]:
            return 'they are broadcast'
        if owners.has_zero and node.math != Math.MUL:
            return ''
        return replace(owners, dim=dim)

    def _concat(self, node: Node, _: ChannelOwners) -> ChannelOwners | str:
        parts = [
            self.owners.get(x)
            or ChannelOwners.unowned(node.dim, x.shape[node.dim])
            for x in node.inputs
        ]
        if any(x.dim != node.dim for x in parts):
            return 'they are concatenated in another dimension'
        return ChannelOwners(
            node.dim,
            torch.cat([x.site for x in parts]),
            torch.cat([x.channel for x in parts]),
            torch.cat([x.zero for x in parts]),
        )

    def _moved(self, node: Node, owners: ChannelOwners) -> ChannelOwners | str:
        """Owners of an operation that moves elements, found by moving them."""
        value = node.inputs[0]
        where = torch.arange(len(owners.site), dtype=torch.int32) + 1
        where = where.reshape(
            [-1 if d == owners.dim else 1 for d in range(len(value.shape))]
        ).expand(value.shape)
        moved = RUN[node.op](node, where)
        for dim in range(moved.dim()):
            line = moved.movedim(dim, -1).reshape(-1, moved.shape[dim])
            if bool((line == line[0]).all()):
                numbers = line[0].long() - 1
                return owners.at(numbers, dim)
        return f'a {node.op.value} mixes channels'

    def apply(self) -> None:
        """Write the lists into the graph; remove or replace the masks."""
        editor = Editor(self.graph)
        for node, owners in self.owners.items():
            skips = any(n not in self.dense for n in owners.sites())
            if node.op is not Op.MASK and skips:
                node.writes = self._list(owners, computed=True)
                node.channel_dim = owners.dim
        for node, owners in self.reads.items():
            node.reads = self._list(owners)
        self._clear_all(editor)
        for node in [x for x in self.graph.nodes if x.op is Op.MASK]:
            if editor.is_in_graph(node):
                self._unmask(node, editor)
        editor.close()

    def _clear_all(self, editor: Editor) -> None:
        clears: dict[Node, Node] = {}
        for reader, value in self.cleared:
            if value not in clears:
                clears[value] = editor.append(self._clear(value), value)
            clear = clears[value]
            if reader is None:
                outputs = self.graph.outputs
                self.graph.outputs = [
                    clear if x is value else x for x in outputs
                ]
            else:
                editor.read(reader, value, clear)

    def _list(
        self, owners: ChannelOwners, computed: bool = False
    ) -> ChannelList:
        """The channel list, of computed or of read channels."""
        site, channel = owners.site, owners.channel
        if computed:  # channels of dense sites are always computed
            dense = torch.tensor(sorted(self.dense), dtype=torch.long)
            site = torch.where(torch.isin(site, dense), NO_SITE, site)
        key = (tuple(site.tolist()), tuple(channel.tolist()))
        if key not in self._lists:
            self._lists[key] = self._new_list(site, channel)
        return self._lists[key]

    def _new_list(self, site: Tensor, channel: Tensor) -> ChannelList:
        numbers = sorted({*site.tolist()} - {NO_SITE})
        if len(numbers) == 1 and NO_SITE not in site:
            own = self._site_list(numbers[0])
            if torch.equal(channel, torch.arange(own.channels)):
                return own
        segments: list[Segment] = []
        free = (site == NO_SITE).nonzero().flatten().tolist()
        if free:
            segments.append((ALL, 1, tuple(free)))
        for number in numbers:
            segments += self._segments(number, site, channel)
        return ChannelList(len(site), None, tuple(segments))

    def _segments(
        self, number: int, site: Tensor, channel: Tensor
    ) -> list[Segment]:
        """The channels of a value that belong to one site."""
        own = self._site_list(number)
        found: list[list[int]] = [[] for _ in range(own.channels)]
        for index in (site == number).nonzero().flatten().tolist():
            found[channel[index]].append(index)
        rows = [*zip_longest(*found, fillvalue=-1)]
        count = len(rows)
        if all(n == [*range(n[0], n[0] + count)] for n in found if n):
            return [(own, count, rows[0])]
        return [(own, 1, row) for row in rows]

    def _site_list(self, number: int) -> ChannelList:
        key = ('site', number)
        if key not in self._lists:
            decision = self.decisions[number].decision
            self._lists[key] = ChannelList(decision.shape[1], decision)
        return self._lists[key]

    def _clear(self, value: Node) -> Node:
        owners = self.owners[value]
        clear = value.instead(Op.CLEAR, value)
        clear.reads, clear.channel_dim = self._list(owners), owners.dim
        return clear

    def _unmask(self, node: Node, editor: Editor) -> None:
        """Remove a mask of 0 and 1; replace one of factors by a product."""
        x, mask = node.inputs
        site = self.decisions[node.site]
        owners = self.owners[node]
        if not node.factor or _is_binary(site.decision):
            editor.replace(node, x)
            return
        if node.positions is not None:
            mask = self._spread(node, mask, editor)
        shape = [1] * len(node.shape)
        shape[node.dim] = node.shape[node.dim]
        view = Node(Op.RESHAPE, [mask], tuple(shape))
        product = node.instead(Op.BINARY, x, view, math=Math.MUL)
        product.writes = self._list(owners)
        product.channel_dim = owners.dim
        editor.insert(view, node)
        editor.replace(node, product)

    def _spread(self, node: Node, mask: Node, editor: Editor) -> Node:
        """The factors at their positions, 1 elsewhere."""
        one = Node(Op.CONSTANT, [], (1, 1), {'tensor': torch.ones(1, 1)})
        width = mask.shape[1] + 1
        both = Node(Op.CONCAT, [mask, one], (1, width), {'dim': 1})
        index = torch.tensor(node.positions) % width
        taken = Node(
            Op.TAKE, [both], (1, len(index)), {'dim': 1, 'index': index}
        )
        for new in (one, both, taken):
            editor.insert(new, node)
        return taken


def _positions(positions: tuple[int, ...] | None, size: int) -> Tensor:
    """The site's channel of every channel of a layer; -1: none."""
    return torch.tensor(range(size) if positions is None else positions)


REARRANGE = (
    Op.RESHAPE,
    Op.PERMUTE,
    Op.EXPAND,
    Op.SLICE,
    Op.SELECT,
    Op.TAKE,
    Op.CONCAT,
    Op.DECISION,
)


def _is_binary(node: Node) -> bool:
    """Whether all elements are 0 or 1 for every image."""
    if node.op is Op.CONSTANT:
        return bool(((node.tensor == 0) | (node.tensor == 1)).all())
    if node.op is Op.UNARY and node.act.kind is Act.GREATER:
        return True
    if node.op is Op.TOPK:
        return node.ones
    product = node.op is Op.BINARY and node.math == Math.MUL
    if node.op in REARRANGE or product:
        return all(map(_is_binary, node.inputs))
    return False


def _keeps_zero(node: Node) -> bool:
    """Whether it maps 0 to 0."""
    shifted = node.op is Op.AFFINE and node.shift is not None
    return not shifted and not activate(torch.zeros(1), node.act).any()


RULES: dict[
    Op,
    Callable[
        [_ChannelPropagation, Node, ChannelOwners], ChannelOwners | str | None
    ],
] = {
    **dict.fromkeys(MOVES, _ChannelPropagation._moved),
    **dict.fromkeys(
        (Op.UNARY, Op.AFFINE, Op.POOL, Op.MEAN, Op.PAD, Op.RESIZE),
        _ChannelPropagation._channelwise,
    ),
    Op.CONV: _ChannelPropagation._product,
    Op.LINEAR: _ChannelPropagation._product,
    Op.BINARY: _ChannelPropagation._binary,
    Op.CONCAT: _ChannelPropagation._concat,
}
