"""Who uses what a layer gives: one watched forward pass."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

# They ask a tensor for its shape and the like, not for its values.
ASKING = {'__get__', 'size', 'dim', 'numel', 'stride', 'is_contiguous'}


class UseTrace(TorchFunctionMode):
    """Notes which leaf module uses each tensor, in order.

    Attributes:
        uses: For the id of a tensor, the innermost modules at work when a
            function took it.
        outputs: For the id of a leaf module, what it gave, every time.
        takers: For the id of a leaf module, what it was given first.
    """

    def __init__(self) -> None:
        super().__init__()
        self.uses: dict[int, list[nn.Module | None]] = defaultdict(list)
        self.outputs: dict[int, list[Any]] = defaultdict(list)
        self.inputs: dict[int, list[Any]] = defaultdict(list)
        self._running: list[nn.Module] = []
        self._kept: list[Any] = []  # an id is one tensor's as long as it lives

    def run(self, network: nn.Module, images: Tensor) -> UseTrace:
        """Watch one pass."""
        hooks = []
        for module in network.modules():
            hooks.append(module.register_forward_pre_hook(self._enter))
            hooks.append(module.register_forward_hook(self._leave))
        try:
            with self, torch.no_grad():
                network(images)
        finally:
            for hook in hooks:
                hook.remove()
        return self

    def __torch_function__(
        self,
        func: Callable,
        types: Any,
        args: tuple = (),
        kwargs: dict | None = None,
    ) -> Any:
        """Note the tensors among the arguments."""
        if getattr(func, '__name__', '') not in ASKING:
            running = self._running[-1] if self._running else None
            for tensor in _tensors([args, kwargs]):
                self.uses[id(tensor)].append(running)
                self._kept.append(tensor)
        return func(*args, **(kwargs or {}))

    def only_user(self, layer: nn.Module) -> nn.Module | None:
        """The module that takes what a layer gives, if only one does."""
        uses = self.uses_of(layer)
        users = {id(user) for user in uses}
        if len(users) != 1 or not self._runs_once_on(uses[0], layer):
            return None
        return uses[0]

    def first_user(self, layer: nn.Module) -> nn.Module | None:
        """The module that takes what a layer gives before all others."""
        uses = self.uses_of(layer)
        return uses[0] if uses else None

    def uses_of(self, layer: nn.Module) -> list[nn.Module | None]:
        """Who takes what a layer gives, in order; no one if it runs twice."""
        given = self.outputs[id(layer)]
        if len(given) != 1 or not isinstance(given[0], Tensor):
            return []
        return self.uses[id(given[0])]

    def _runs_once_on(self, user: nn.Module | None, layer: nn.Module) -> bool:
        taken = self.inputs[id(user)]
        return len(taken) == 1 and taken[0] is self.outputs[id(layer)][0]

    def _enter(self, module: nn.Module, args: tuple) -> None:
        self._running.append(module)
        self.inputs[id(module)].append(args[0] if args else None)

    def _leave(self, module: nn.Module, _: Any, output: Any) -> None:
        self._running.pop()
        self.outputs[id(module)].append(output)
        self._kept.append(output)


def _tensors(nested: Any) -> Iterator[Tensor]:
    if isinstance(nested, Tensor):
        yield nested
    elif isinstance(nested, (list, tuple)):
        for item in nested:
            yield from _tensors(item)
    elif isinstance(nested, dict):
        yield from _tensors(list(nested.values()))
