"""Capturing a network as a graph, by recording the operations of a pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functionalize
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import (
    TreeSpec,
    tree_flatten,
    tree_leaves,
    tree_map_only,
    tree_unflatten,
)

from fgc_mm.deploy.graph.composed import ALL_CONVERTERS
from fgc_mm.deploy.graph.from_aten import Conversion
from fgc_mm.deploy.graph.ir import Graph, Node, Op, SiteValues
from fgc_mm.deploy.graph.marks import (
    BRANCH_END,
    DECISION,
    FEATURE,
    MASK,
    MarkingHooks,
)
from fgc_mm.models import GatedBackbone
from fgc_mm.models.gated_backbone import as_outputs
from fgc_mm.sites import GateHooks, GateSite
from fgc_mm.sites.call import GatedCall
from fgc_mm.sites.copying import copy_network
from fgc_mm.sites.gate_hooks import owner_of
from fgc_mm.sites.layer_channels import channels_last

aten = torch.ops.aten
PYTHON_READS = (
    'numpy',
    'tolist',
    '__array__',
    '__dlpack__',
    'data_ptr',
    'untyped_storage',
)
# operations whose output shape depends on values, but which torch does not tag
VALUE_DEPENDENT_SHAPES = (
    aten._unique.default,
    aten._to_sparse.default,
    aten._to_sparse.sparse_dim,
    aten._pack_padded_sequence.default,
)
# operations whose results depend on the strides of a tensor in memory
READ_STRIDES = (
    aten.as_strided.default,
    aten.as_strided_copy.default,
    aten.as_strided_scatter.default,
)
# operations whose results depend on shapes only
LIKE = (
    aten.zeros_like.default,
    aten.ones_like.default,
    aten.full_like.default,
    aten.empty_like.default,
    aten.new_zeros.default,
    aten.new_empty.default,
    aten.new_ones.default,
    aten.new_full.default,
)


class CannotCapture(Exception):
    """The network cannot be captured; the text says why."""


def capture(
    backbone: nn.Module, image: Tensor, following: Sequence[nn.Module] = ()
) -> list[Graph]:
    """Record what a network computes for one image, gates included.

    Args:
        backbone: A :class:`fgc_mm.GatedBackbone`, or a network without
            gates, in any mode; it is not changed.
        image: (1, 3, H, W).
        following: Modules applied to its output, one after the other.

    Returns:
        The graph of the backbone; then, if ``following`` is not empty, the
        graph up to the last of these modules. The graphs share nodes.

    Raises:
        CannotCapture: The network's code depends on the values of images or
            on strides, changes a tensor in place or a buffer, or does not
            return tensors.
    """
    network, site_hooks = _eval_copy(backbone), []
    following = [_eval_copy(module) for module in following]
    modules = [network, *following]
    sites: Sequence[GateSite] = []
    if isinstance(network, GatedBackbone):
        remove_hooks(network.backbone)
        sites, gates = network.sites, network.gates
        network = network.backbone
        site_hooks = [
            MarkingHooks(site, gates[site.key], number)
            for number, site in enumerate(sites)
        ]
        GateHooks.attach(site_hooks, network.get_submodule)

    def run(x: Tensor) -> list[Any]:
        returned = [GatedCall(site_hooks, False).run(network, x)]
        if following:
            y = tree_map_only(Tensor, FEATURE, returned[0])
            for module in following:
                y = module(as_outputs(y))
            returned.append(y)
        return returned

    with _refuse_changed_buffers(modules):
        return _CaptureMode(network, sites).capture(run, image)


@contextmanager
def _refuse_changed_buffers(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Refuse code that changes buffers, which a program would not do."""
    buffers = [
        (name, x, x._version)
        for module in modules
        for name, x in module.named_buffers()
        if not x.is_inference()
    ]
    yield
    for name, x, version in buffers:
        if x._version != version:
            raise CannotCapture(f'its code changes the buffer {name}')


def _eval_copy(module: nn.Module) -> nn.Module:
    """A copy in evaluation; ``train`` of some backbones returns None."""
    network_copy = copy_network(module, weights=False)
    network_copy.train(False)
    return network_copy


def remove_hooks(network: nn.Module) -> None:
    """Remove the hooks of gates from a network's layers."""
    for module in network.modules():
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            for number, hook in list(hooks.items()):
                if isinstance(owner_of(hook), GateHooks):
                    del hooks[number]


class _CaptureMode(TorchDispatchMode):
    """Records every operation on tensors that depend on the image.

    Results of constants alone are constants. The mode only affects the
    thread that captures.
    """

    def __init__(self, network: nn.Module, sites: Sequence[GateSite]) -> None:
        super().__init__()
        self._network, self._sites = network, sites
        self._nodes: dict[Node, None] = {}  # in execution order
        self._node_of: dict[int, Node] = {}
        self._constants: dict[int, Node] = {}
        self._tensors: list[Tensor] = []  # kept, so that ids stay unique
        self._site_values: dict[int, SiteValues] = {}
        self._modules: list[str] = []

    def capture(
        self, run: Callable[[Tensor], list[Any]], image: Tensor
    ) -> list[Graph]:
        self._track_modules()
        with (
            torch.inference_mode(False),
            torch.no_grad(),
            torch.autocast('cpu', enabled=False),
        ):
            image = image.detach().clone()
            self._new(Node(Op.IMAGE, [], tuple(image.shape)), image)
            with _RefuseValueReads(), self:
                returned = functionalize(run)(image)
        graphs = [self._graph(outputs) for outputs in returned]
        graphs[-1].name_gates()
        return graphs

    def _graph(self, outputs: Any) -> Graph:
        leaves, spec = tree_flatten(outputs)
        for leaf in leaves:
            if not (leaf is None or isinstance(leaf, Tensor)):
                raise CannotCapture(f'it returns a {type(leaf).__name__}')
            if leaf is not None and leaf.dtype != torch.float32:
                raise CannotCapture(f'it returns a tensor of {leaf.dtype}')
        none_leaves = tuple(n for n, leaf in enumerate(leaves) if leaf is None)
        nodes = [self._node(x) for x in leaves if x is not None]
        sites = [self._site_values[n] for n in sorted(self._site_values)]
        return Graph([*self._nodes], nodes, sites, spec, none_leaves)

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple = (),
        kwargs: dict | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is aten.as_strided_.default and _keeps_elements(*args):
            return args[0]  # as torch's pools do for maps in channels_last
        result = func(*args, **kwargs)
        known = any(map(self._depends_on_image, tree_leaves((args, kwargs))))
        # the decision of a gate may be constant
        if (known and func not in LIKE) or func is DECISION:
            self._record(func, args, kwargs, result)
        return result

    def _depends_on_image(self, x: Any) -> bool:
        return isinstance(x, Tensor) and id(x) in self._node_of

    def _record(
        self, func: Any, args: tuple, kwargs: dict, result: Any
    ) -> None:
        if _reads_values(func, args, result):
            raise CannotCapture('its code depends on the values of images')
        if func in READ_STRIDES:
            raise CannotCapture(
                f'{func} depends on strides, which differ between images'
            )
        if func._schema.is_mutable:  # not functionalized
            raise CannotCapture(f'{func} changes a tensor in place')
        if func is DECISION:
            self._record_decision(result, *args)
        elif func is MASK:
            self._record_mask(result, *args)
        elif func is FEATURE:
            self._new(self._node(*args), result)
        else:
            self._record_aten(func, args, kwargs, result)

    def _record_decision(
        self, result: Tensor, mask: Tensor, records: list[Tensor], site: int
    ) -> None:
        shape, name = tuple(mask.shape), self._sites[site].name
        node = Node(Op.DECISION, [self._node(mask)], shape, {'site': site})
        self._new(node, result)
        values = [self._node(x) for x in records]
        self._site_values[site] = SiteValues(name, node, values)

    def _record_mask(
        self, result: Tensor, x: Tensor, mask: Tensor, site: int, consumer: int
    ) -> None:
        found = self._sites[site]
        if consumer != BRANCH_END:
            path = layer = found.consumers[consumer].path
            positions = found.consumers[consumer].positions
        else:
            path, layer = found.branch_end or '', found.producer
            positions = None
        last = channels_last(self._network.get_submodule(layer))
        attrs = dict(
            site=site,
            dim=x.dim() - 1 if last else 1,
            positions=positions,
            # after a residual branch's end the factor is applied already
            factor=found.branch_end is None or consumer == BRANCH_END,
        )
        inputs = [self._node(x), self._node(mask)]
        node = Node(Op.MASK, inputs, tuple(x.shape), attrs, path)
        self._new(node, result)

    def _record_aten(
        self, func: Any, args: tuple, kwargs: dict, result: Any
    ) -> None:
        results = tree_leaves(result)
        nodes = self._converted(func, args, kwargs, result)
        if len(nodes) < len(results):  # the others stay calls of torch
            calls = self._calls(func, args, kwargs, results)
            nodes += calls[len(nodes) :]
        for node, tensor in zip(nodes, results):
            if isinstance(tensor, Tensor):
                self._new(node, tensor)

    def _converted(
        self, func: Any, args: tuple, kwargs: dict, result: Any
    ) -> list[Node]:
        """Nodes of its first results, if the graph has such operations."""
        convert = ALL_CONVERTERS.get(func)
        if convert is None:
            return []
        named = _named(func, args, kwargs)
        try:
            made = convert(Conversion(self._node, self._emit, named, result))
        except LookupError:  # a weight that depends on the image
            return []
        return [made] if isinstance(made, Node) else made or []

    def _emit(self, node: Node) -> Node:
        self._nodes[node] = None
        return node

    def _calls(
        self, func: Any, args: tuple, kwargs: dict, results: Sequence[Any]
    ) -> list[Node]:
        """Nodes of an operation that stays a call of torch."""
        leaves, spec = tree_flatten((args, kwargs))
        given = {
            n: x for n, x in enumerate(leaves) if self._depends_on_image(x)
        }
        inputs = [self._node(x) for x in given.values()]
        dtypes = {n: x.dtype for n, x in given.items()}
        fixed = [None if n in given else x for n, x in enumerate(leaves)]
        named = _named(func, args, kwargs)
        call = TorchCall(func, named, fixed, dtypes, spec)
        return [
            Node(
                Op.CALL,
                inputs,
                tuple(getattr(x, 'shape', ())),
                dict(function=call, output=n),
            )
            for n, x in enumerate(results)
        ]

    def _node(self, tensor: Tensor) -> Node:
        node = self._node_of.get(id(tensor)) or self._constants.get(id(tensor))
        if node is None:
            attrs = {'tensor': tensor.detach()}
            node = Node(Op.CONSTANT, [], tuple(tensor.shape), attrs)
            self._constants[id(tensor)] = self._emit(node)
            self._tensors.append(tensor)
        return node

    def _new(self, node: Node, tensor: Tensor) -> None:
        node.name = node.name or (self._modules[-1] if self._modules else '')
        self._node_of[id(tensor)] = self._emit(node)
        self._tensors.append(tensor)

    def _track_modules(self) -> None:
        """Hook the modules of the network, which is a copy."""
        for path, module in self._network.named_modules():
            if path:
                module.register_forward_pre_hook(
                    lambda *_, path=path: self._modules.append(path)
                )
                module.register_forward_hook(self._leave)

    def _leave(self, *_: Any) -> None:
        self._modules.pop()


def _keeps_elements(
    x: Tensor,
    size: Sequence[int],
    stride: Sequence[int],
    offset: int | None = None,
) -> bool:
    """Whether ``as_strided`` has the same elements at the same indices."""
    return (
        tuple(size) == x.shape
        and offset in (None, x.storage_offset())
        and all(
            count == 1 or old == new
            for count, old, new in zip(size, x.stride(), stride)
        )
    )


def _reads_values(func: Any, args: tuple, result: Any) -> bool:
    """Whether values of tensors reach Python, as a number or as a shape."""
    if func is aten.index.Tensor:  # tagged, since a mask may be an index
        masks = (torch.bool, torch.uint8)
        return any(x is not None and x.dtype in masks for x in args[1])
    return (
        torch.Tag.dynamic_output_shape in func.tags
        or torch.Tag.data_dependent_output in func.tags
        or func in VALUE_DEPENDENT_SHAPES
        or not any(isinstance(x, Tensor) for x in tree_leaves(result))
    )


class _RefuseValueReads(TorchFunctionMode):
    """Refuses functions that pass values to Python without an operation."""

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple = (),
        kwargs: dict | None = None,
    ) -> Any:
        if getattr(func, '__name__', '') in PYTHON_READS:
            raise CannotCapture('its code depends on the values of images')
        return func(*args, **(kwargs or {}))


@dataclass(eq=False)
class TorchCall:
    """An operation of torch with all arguments but some tensors fixed.

    Attributes:
        function: The operation.
        named: Its arguments by name.
        fixed: Its arguments, flattened; ``None`` for tensors given later.
        given: Indices and dtypes of the tensors given later.
        spec: Structure of the arguments.
    """

    function: Any
    named: dict[str, Any]
    fixed: list[Any]
    given: dict[int, torch.dtype]
    spec: TreeSpec

    def __call__(self, *tensors: Tensor) -> list[Any]:
        leaves = list(self.fixed)
        for (n, dtype), tensor in zip(self.given.items(), tensors):
            leaves[n] = tensor.to(dtype)
        args, kwargs = tree_unflatten(leaves, self.spec)
        results = tree_leaves(self.function(*args, **kwargs))
        return [None if x is None else x.float() for x in results]

    def __str__(self) -> str:
        return str(self.function)


def _named(func: Any, args: tuple, kwargs: dict) -> dict[str, Any]:
    """An operation's arguments by name, defaults included."""
    arguments = func._schema.arguments
    defaults = {
        x.name: x.default_value for x in arguments if x.has_default_value()
    }
    return defaults | dict(zip((x.name for x in arguments), args)) | kwargs
