"""Editing a graph: inserting and replacing nodes."""

from __future__ import annotations

from fgc_mm.deploy.graph.ir import Graph, Node


class Editor:
    """Inserts and replaces nodes, and tracks the users of every node.

    Args:
        graph: Its sites and outputs change immediately, its nodes in
            :meth:`close`.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._users: dict[Node, list[Node]] = {x: [] for x in graph.nodes}
        for node in graph.nodes:
            for x in node.inputs:
                self._users[x].append(node)
        # a new node gets the execution position of the one it replaces
        self._order = {node: float(n) for n, node in enumerate(graph.nodes)}
        self._outputs = {*graph.outputs, *graph.decided()}

    def is_in_graph(self, node: Node) -> bool:
        """Whether it is a part of the graph."""
        return node in self._users

    def users(self, node: Node) -> list[Node]:
        """The nodes that read it, once per input."""
        return self._users[node]

    def is_output(self, node: Node) -> bool:
        """Whether it is an output of the graph or in a site's records."""
        return node in self._outputs

    def read_once(self, node: Node) -> bool:
        """Whether exactly one other node needs it."""
        return len(self._users[node]) == 1 and not self.is_output(node)

    def insert(self, node: Node, at: Node) -> Node:
        """Insert a node that runs before another one."""
        if node not in self._users:
            self._users[node] = []
            self._order[node] = self._order[at] - 0.5
            for x in node.inputs:
                self._users[x].append(node)
        return node

    def append(self, node: Node, at: Node) -> Node:
        """Insert a node that runs right after another one."""
        self.insert(node, at)
        self._order[node] = self._order[at] + 0.5
        return node

    def replace(self, old: Node, new: Node) -> None:
        """Make all users of ``old`` read ``new``, except ``new`` itself."""
        self.insert(new, old)
        self._order[new] = min(self._order[new], self._order[old])
        for reader in dict.fromkeys(self._users[old]):
            if reader is not new:
                self.read(reader, old, new)
        if old in self._outputs:
            graph = self.graph
            graph.outputs = [new if x is old else x for x in graph.outputs]
            for site in graph.sites:
                site.records = [new if x is old else x for x in site.records]
            self._outputs = {*graph.outputs, *graph.decided()}
        self._remove_unused(old)

    def read(self, reader: Node, old: Node, new: Node) -> None:
        """Make one node read ``new`` instead of ``old``."""
        self._users[new] += [x for x in self._users[old] if x is reader]
        self._users[old] = [x for x in self._users[old] if x is not reader]
        reader.inputs = [new if x is old else x for x in reader.inputs]

    def _remove_unused(self, node: Node) -> None:
        """Remove a node and its inputs if they have no users left."""
        stack = [node]
        while stack:
            x = stack.pop()
            if x not in self._users or self._users[x] or self.is_output(x):
                continue
            del self._users[x]
            for value in set(x.inputs):
                if value in self._users:
                    left = [u for u in self._users[value] if u is not x]
                    self._users[value] = left
                    stack.append(value)

    def close(self) -> None:
        """Write the nodes into the graph, in execution order."""
        image = self.graph.nodes[0]
        self._users.setdefault(image, [])
        self.graph.nodes = sorted(self._users, key=self._order.__getitem__)
        self.graph.prune()
