"""Capturing a network as a graph: one pass, recorded by operation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functionalize
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

from fgc_mm.deploy.copying import copied
from fgc_mm.deploy.graph.aten import Converting
from fgc_mm.deploy.graph.composed import ALL_CONVERTERS
from fgc_mm.deploy.graph.ir import Graph, Node, Op, SiteValues
from fgc_mm.deploy.graph.marks import (
    DECISION,
    END,
    FEATURE,
    MASK,
    MarkingHooks,
)
from fgc_mm.models import GatedBackbone
from fgc_mm.models.gated_backbone import as_outputs
from fgc_mm.sites import GateHooks, GateSite
from fgc_mm.sites.call import GatedCall
from fgc_mm.sites.layout import channels_last

aten = torch.ops.aten
# operations that make a network's code depend on the values of an image
READS = (aten._local_scalar_dense.default, aten.equal.default)
OUTSIDE = ('numpy', 'tolist', '__array__', 'data_ptr', 'untyped_storage')
# operations whose output shape depends on values
SHAPES = (
    aten.nonzero.default,
    aten.masked_select.default,
    aten._unique2.default,
    aten.unique_dim.default,
    aten.unique_consecutive.default,
)
# operations whose results depend on shapes only
LIKE = (
    aten.zeros_like.default,
    aten.ones_like.default,
    aten.full_like.default,
    aten.new_zeros.default,
    aten.new_ones.default,
    aten.new_full.default,
)


class CannotCapture(Exception):
    """Why the network cannot be captured."""


def capture(
    backbone: nn.Module,
    image: Tensor,
    behind: Sequence[nn.Module] = (),
) -> list[Graph]:
    """Record what a network computes for one image, gates included.

    Args:
        backbone: A :class:`fgc_mm.GatedBackbone`, or a network without
            gates, in any mode; it is not changed.
        image: (1, 3, H, W).
        behind: Modules applied to its output, one after the other.

    Returns:
        The graph of the backbone; then, if there are modules after it, the
        graph up to the last of them. They share nodes.

    Raises:
        CannotCapture: The network's code depends on the values of images, or
            it does not return tensors.
    """
    network, site_hooks = _evaluated(backbone), []
    behind = [_evaluated(module) for module in behind]
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
        if behind:
            y = tree_map_only(Tensor, FEATURE, returned[0])
            for module in behind:
                y = module(as_outputs(y))
            returned.append(y)
        return returned

    return _Watch(network, sites).capture(run, image)


def _evaluated(module: nn.Module) -> nn.Module:
    """A copy in evaluation; ``train`` of some backbones returns None."""
    twin = copied(module, weights=False)
    twin.train(False)
    return twin


def remove_hooks(network: nn.Module) -> None:
    """Remove the hooks of gates from a network's layers."""
    for module in network.modules():
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            for number, hook in list(hooks.items()):
                if _is_a_ports(hook):
                    del hooks[number]


def _is_a_ports(hook: object) -> bool:
    hook = getattr(hook, 'func', hook)  # a partial
    return isinstance(getattr(hook, '__self__', None), GateHooks)


class _Watch(TorchDispatchMode):
    """Records every operation on tensors that depend on the image.

    Results of constants alone are constants. The mode only affects the
    thread that captures.
    """

    def __init__(self, network: nn.Module, sites: Sequence[GateSite]) -> None:
        super().__init__()
        self._network, self._sites = network, sites
        self._nodes: list[Node] = []
        self._known: set[Node] = set()
        self._of: dict[int, Node] = {}
        self._constants: dict[int, Node] = {}
        self._alive: list[Tensor] = []  # an id is unique while tensors live
        self._found: dict[int, SiteValues] = {}
        self._modules: list[str] = []

    def capture(
        self, run: Callable[[Tensor], list[Any]], image: Tensor
    ) -> list[Graph]:
        hooks = self._watch_modules()
        try:
            with (
                torch.inference_mode(False),
                torch.no_grad(),
                torch.autocast('cpu', enabled=False),
            ):
                image = image.detach().clone()
                self._new(Node(Op.IMAGE, [], tuple(image.shape)), image)
                with _NoReads(), self:
                    returned = functionalize(run)(image)
        finally:
            for hook in hooks:
                hook.remove()
        graphs = [self._graph(outputs) for outputs in returned]
        graphs[-1].name_gates()
        return graphs

    def _graph(self, outputs: Any) -> Graph:
        leaves, spec = tree_flatten(outputs)
        for leaf in leaves:
            if not (leaf is None or isinstance(leaf, Tensor)):
                raise CannotCapture(f'it returns a {type(leaf).__name__}')
        nothing = tuple(n for n, leaf in enumerate(leaves) if leaf is None)
        nodes = [self._node(x) for x in leaves if x is not None]
        sites = [self._found[n] for n in sorted(self._found)]
        return Graph(self._nodes, nodes, sites, spec, nothing)

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple = (),
        kwargs: dict | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        flat = torch.utils._pytree.tree_leaves((args, kwargs))
        known = any(isinstance(x, Tensor) and id(x) in self._of for x in flat)
        if known and func not in LIKE:
            self._note(func, args, kwargs, result)
        return result

    def _note(self, func: Any, args: tuple, kwargs: dict, result: Any) -> None:
        if func in READS or func in SHAPES or _picks(func, args):
            raise CannotCapture('its code depends on the values of images')
        if func._schema.is_mutable:  # others were functionalized
            raise CannotCapture(f'{func} changes a tensor in place')
        if func is DECISION:
            self._note_decision(*args, result)
        elif func is MASK:
            self._note_mask(*args, result)
        elif func is FEATURE:
            self._new(self._node(*args), result)
        else:
            self._note_aten(func, args, kwargs, result)

    def _note_decision(
        self, mask: Tensor, records: list[Tensor], site: int, result: Tensor
    ) -> None:
        node = Node(
            Op.DECISION,
            [self._node(mask)],
            tuple(mask.shape),
            {'site': site},
        )
        self._new(node, result)
        values = [self._node(x) for x in records]
        self._found[site] = SiteValues(self._sites[site].name, node, values)

    def _note_mask(
        self, x: Tensor, mask: Tensor, site: int, place: int, result: Tensor
    ) -> None:
        found = self._sites[site]
        path, positions = found.branch_end, None
        if place != END:
            path = found.consumers[place].path
            positions = found.consumers[place].positions
        layer = found.producer if place == END else path
        last = channels_last(self._network.get_submodule(layer))
        node = Node(
            Op.MASK,
            [self._node(x), self._node(mask)],
            tuple(x.shape),
            {
                'site': site,
                'dim': x.dim() - 1 if last else 1,
                'positions': positions,
                # behind a residual branch's end the factor was applied
                'factor': found.branch_end is None or place == END,
            },
            name=path,
        )
        self._new(node, result)

    def _note_aten(
        self, func: Any, args: tuple, kwargs: dict, result: Any
    ) -> None:
        results = result if isinstance(result, (tuple, list)) else [result]
        nodes = self._converted(func, args, kwargs, result) or []
        if len(nodes) < len(results):  # the others stay calls of torch
            calls = self._calls(func, args, kwargs, results)
            nodes += calls[len(nodes) :]
        for node, tensor in zip(nodes, results):
            if isinstance(tensor, Tensor):
                self._new(node, tensor)

    def _converted(
        self, func: Any, args: tuple, kwargs: dict, result: Any
    ) -> list[Node] | None:
        convert = ALL_CONVERTERS.get(func)
        if convert is None:
            return None
        named = _named(func, args, kwargs)
        try:
            made = convert(Converting(self._node, self._emit, named, result))
        except LookupError:  # a weight that depends on the image
            return None
        return [made] if isinstance(made, Node) else made

    def _emit(self, node: Node) -> Node:
        self._known.add(node)
        self._nodes.append(node)
        return node

    def _calls(
        self, func: Any, args: tuple, kwargs: dict, results: Sequence[Any]
    ) -> list[Node]:
        """Nodes of an operation that stays a call of torch."""
        leaves, spec = tree_flatten((args, kwargs))
        places = [
            n
            for n, x in enumerate(leaves)
            if isinstance(x, Tensor) and id(x) in self._of
        ]
        inputs = [self._node(leaves[n]) for n in places]
        fixed = [None if n in places else x for n, x in enumerate(leaves)]
        dtypes = [leaves[n].dtype for n in places]
        call = TorchCall(func, fixed, places, dtypes, spec)
        call.named = _named(func, args, kwargs)
        return [
            Node(
                Op.CALL,
                inputs,
                tuple(x.shape) if isinstance(x, Tensor) else (),
                {'function': call, 'output': n},
                name=self._modules[-1] if self._modules else '',
            )
            for n, x in enumerate(results)
        ]

    def _node(self, tensor: Tensor) -> Node:
        node = self._of.get(id(tensor)) or self._constants.get(id(tensor))
        if node is None:
            node = Node(
                Op.CONSTANT,
                [],
                tuple(tensor.shape),
                {'tensor': tensor.detach()},
            )
            self._constants[id(tensor)] = self._emit(node)
            self._alive.append(tensor)
        return node

    def _new(self, node: Node, tensor: Tensor) -> None:
        node.name = node.name or (self._modules[-1] if self._modules else '')
        if node not in self._known:
            self._known.add(node)
            self._nodes.append(node)
        self._of[id(tensor)] = node
        self._alive.append(tensor)

    def _watch_modules(self) -> list[Any]:
        hooks = []
        for path, module in self._network.named_modules():
            if path:
                hooks.append(
                    module.register_forward_pre_hook(self._enter(path))
                )
                hooks.append(module.register_forward_hook(self._leave))
        return hooks

    def _enter(self, path: str) -> Callable[..., None]:
        def enter(_: nn.Module, __: Any) -> None:
            self._modules.append(path)

        return enter

    def _leave(self, *_: Any) -> None:
        if self._modules:
            self._modules.pop()


def _picks(func: Any, args: tuple) -> bool:
    """Whether it is indexing with a boolean mask."""
    if func is not aten.index.Tensor:
        return False
    return any(x is not None and x.dtype == torch.bool for x in args[1])


class _NoReads(TorchFunctionMode):
    """Refuses functions that pass values to Python without an operation."""

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple = (),
        kwargs: dict | None = None,
    ) -> Any:
        if getattr(func, '__name__', '') in OUTSIDE:
            raise CannotCapture('its code depends on the values of images')
        return func(*args, **(kwargs or {}))


class TorchCall:
    """An operation of torch with all arguments but some tensors fixed.

    Args:
        function: The operation.
        fixed: Its arguments, flattened; ``None`` for tensors given later.
        places: Indices of the tensors given later.
        dtypes: Dtypes that these are converted to.
        spec: Structure of the arguments.

    Attributes:
        named: The arguments by name.
    """

    named: dict[str, Any]

    def __init__(
        self,
        function: Any,
        fixed: list[Any],
        places: list[int],
        dtypes: list[torch.dtype],
        spec: Any,
    ) -> None:
        self.function = function
        self.fixed, self._places, self._spec = fixed, places, spec
        self._dtypes = dtypes

    def __call__(self, *tensors: Tensor) -> list[Any]:
        leaves = list(self.fixed)
        for n, tensor, to in zip(self._places, tensors, self._dtypes):
            leaves[n] = tensor.to(to)
        args, kwargs = torch.utils._pytree.tree_unflatten(leaves, self._spec)
        result = self.function(*args, **kwargs)
        results = result if isinstance(result, (tuple, list)) else [result]
        return [None if x is None else x.float() for x in results]

    def __str__(self) -> str:
        return str(self.function)


def _named(func: Any, args: tuple, kwargs: dict) -> dict[str, Any]:
    """An operation's arguments by name, defaults included."""
    named = {}
    for number, argument in enumerate(func._schema.arguments):
        if number < len(args):
            named[argument.name] = args[number]
        elif argument.name in kwargs:
            named[argument.name] = kwargs[argument.name]
        elif argument.has_default_value():
            named[argument.name] = argument.default_value
    return named
