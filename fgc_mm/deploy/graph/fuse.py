"""Fusing activations and sums into the operation before them."""

from __future__ import annotations

from fgc_mm.deploy.graph.editing import Editor
from fgc_mm.deploy.graph.ir import ALL, Graph, Node, Op
from fgc_mm.runtime.format import Act, Math

WITH_ACT = (
    Op.CONV,
    Op.LINEAR,
    Op.AFFINE,
    Op.NORM,
    Op.BINARY,
    Op.POOL,
    Op.MEAN,
)


def fuse(graph: Graph) -> None:
    """Fuse in place; channel lists must be assigned.

    A sum is fused into a conv whose only reader it is. The conv then runs at
    the position of the sum, where the other summand is available. An
    activation is fused into an operation whose only reader it is.
    """
    editor = Editor(graph)
    for node in list(graph.nodes):
        if not editor.is_in_graph(node):
            continue
        if node.op is Op.BINARY and node.math == Math.ADD:
            _fuse_sum(editor, node)
        elif node.op is Op.UNARY:
            _fuse_activation(editor, node)
    editor.close()


def _fuse_sum(editor: Editor, node: Node) -> None:
    first, second = node.inputs
    for conv, other in ((second, first), (first, second)):
        if (
            conv.op in (Op.CONV, Op.LINEAR)
            and other.op is not Op.CONSTANT
            and len(conv.inputs) == 1
            and conv.act.kind is Act.NONE
            and conv.writes is ALL
            and conv.shape == other.shape == node.shape
            # a conv of several images may become one op per image
            and (conv.op is Op.LINEAR or conv.shape[0] == 1)
            and editor.read_once(conv)
        ):
            joined = Node(
                conv.op,
                [conv.inputs[0], other],
                node.shape,
                conv.attrs,
                conv.name,
                reads=conv.reads,
                act=node.act,
            )
            editor.replace(node, joined)
            return


def _fuse_activation(editor: Editor, node: Node) -> None:
    (x,) = node.inputs
    if (
        x.op in WITH_ACT
        and x.writes is node.writes
        and x.act.kind is Act.NONE
        and editor.read_once(x)
    ):
        x.act = node.act
        editor.replace(node, x)
