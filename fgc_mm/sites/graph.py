"""Candidate sites in torch-pruning's dependency graph."""

import warnings
from collections.abc import Iterator
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn

from fgc_mm.errors import FGCError
from fgc_mm.sites.site import Consumer, GateSite

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Linear)
PER_CHANNEL = (
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.PReLU,
    tp.ops._ElementWiseOp,
    tp.ops._ConcatOp,
    tp.ops._SplitOp,
    tp.ops._ReshapeOp,
)


def graph_candidates(
    backbone: nn.Module, images: Tensor
) -> Iterator[GateSite]:
    """Every layer whose output channels reach no residual sum.

    A group of coupled channels is a candidate if it has one producer, the
    last layer of a squeeze-excite apart, if nothing that mixes channels or
    sums two branches belongs to it, and if it does not leave the backbone.
    The graph is sometimes wrong about reshaped channels: a candidate is a
    site only once :func:`fgc_mm.sites.leaks.tight_sites` has tried it.

    Args:
        backbone: In evaluation mode.
        images: (N, C, H, W) that it accepts.

    Raises:
        FGCError: The backbone cannot be traced.
    """
    graph = _trace(backbone, images)
    names = {module: name for name, module in backbone.named_modules()}
    for layer, name in names.items():
        if _is_dense(layer) and layer in graph.module2node:
            site = _Group(graph, names, layer).site(name)
            if site is not None:
                yield site


def _trace(backbone: nn.Module, images: Tensor) -> tp.DependencyGraph:
    # The graph is autograd's, and frozen stages must not cut it: eval() of
    # mmpretrain's backbones freezes them again, so it is the image that asks.
    images = images.detach().requires_grad_()
    with warnings.catch_warnings(), torch.enable_grad():
        warnings.simplefilter('ignore')
        try:
            return tp.DependencyGraph().build_dependency(backbone, images)
        except TimeoutError:
            raise
        except Exception as error:
            raise FGCError(
                f'{type(backbone).__name__} cannot be traced with an image '
                f'of {"x".join(map(str, images.shape[1:]))} '
                f'({_last_line(error)}); give an image size that it accepts: '
                "sites=dict(type='auto', image_size=...)."
            ) from error


def _last_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[-1]


def _is_dense(layer: nn.Module) -> bool:
    return isinstance(layer, LAYERS) and not _is_depthwise(layer)


def _is_depthwise(layer: nn.Module) -> bool:
    groups = getattr(layer, 'groups', 1)
    return groups > 1 and groups == layer.in_channels == layer.out_channels


def _width(layer: nn.Module, of_output: bool) -> int:
    if isinstance(layer, nn.Linear):
        return layer.out_features if of_output else layer.in_features
    return layer.out_channels if of_output else layer.in_channels


class _Group:
    """The channels that are coupled with the output of one layer."""

    def __init__(
        self,
        graph: tp.DependencyGraph,
        names: dict[nn.Module, str],
        producer: nn.Module,
    ) -> None:
        self.graph = graph
        self.names = names
        self.producer = producer
        self.channels = _width(producer, of_output=True)
        self.consumers: dict[str, Consumer] = {}
        self.outputs: dict[str, nn.Module] = {}

    def site(self, name: str) -> GateSite | None:
        """The group as a site, if it is one."""
        prune = self.graph.get_pruner_of_module(self.producer)
        try:
            group = self.graph.get_pruning_group(
                self.producer,
                prune.prune_out_channels,
                list(range(self.channels)),
            )
        except (IndexError, KeyError, AssertionError, ValueError):
            return None  # channels that the graph lost track of
        fits = all(self._take(item) for item in group.items)
        if not fits or not self.consumers or not self._one_producer():
            return None
        return GateSite(
            name,
            tuple(self._in_order(self.consumers).values()),
            tuple(self._in_order(self.outputs)),
            _width(self.producer, of_output=False),
            self.channels,
        )

    def _in_order(self, members: dict[str, Any]) -> dict[str, Any]:
        """Members by path, in the order of the backbone's modules."""
        order = self.names.values()
        return {name: members[name] for name in order if name in members}

    def _take(self, item: Any) -> bool:
        """Note a member of the group; False if it forbids a site."""
        node, module = item.dep.target, item.dep.target.module
        if isinstance(module, LAYERS):
            if module not in self.names:
                return False  # a function's weight, which has no hook
            reads = self.graph.is_in_channel_pruning_fn(item.dep.handler)
            if reads and not _is_depthwise(module):
                return self._consume(module, item)
            self.outputs[self.names[module]] = module
            return True
        return isinstance(module, PER_CHANNEL) and not _sums(node)

    def _consume(self, layer: nn.Module, item: Any) -> bool:
        width = _width(layer, of_output=False)
        positions = [-1] * width
        for place, channel in zip(item.idxs, item.root_idxs):
            if channel is None or not 0 <= place < width:
                return False
            positions[place] = channel
        whole = positions == list(range(self.channels))
        name = self.names[layer]
        if name in self.consumers:
            return False  # two places of one input, or two runs
        self.consumers[name] = Consumer(
            name, None if whole else tuple(positions)
        )
        return True

    def _one_producer(self) -> bool:
        return all(
            layer is self.producer
            or _is_depthwise(layer)
            or self._squeezed(layer)
            for layer in self.outputs.values()
        )

    def _squeezed(self, layer: nn.Module) -> bool:
        """Whether a layer reads nothing but the group's own consumers."""
        seen, todo = set(), list(self.graph.module2node[layer].inputs)
        while todo:
            node = todo.pop()
            if node in seen:
                continue
            seen.add(node)
            if not isinstance(node.module, LAYERS):
                todo += node.inputs
            elif self.names.get(node.module) not in self.consumers:
                return False
        return bool(seen)


def _sums(node: Any) -> bool:
    """Whether an element-wise node adds two branches of the network."""
    kind = str(node.name)
    adds = 'AddBackward' in kind or 'SubBackward' in kind
    return adds and len(set(node.inputs)) > 1
