"""Counts operations, reads and copies of a program on an accelerator."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ALLOCATIONS = {'empty', 'empty_like', 'empty_strided', 'new_empty', 'resize_'}
# neither a kernel nor, by its schema, a view
FREE = {'_unsafe_view', 'detach', 'set_', 'lift_fresh', '_reshape_alias'}
# the host reads a value, or the size of a result
VALUES = {'_local_scalar_dense', 'equal'}
SIZES = {'nonzero', 'masked_select', '_unique2', 'unique_consecutive'}
INDEXED = {'index', 'index_put', 'index_put_', '_index_put_impl_'}


class OperationCounter(TorchDispatchMode):
    """Counts operations on tensors of one device, by part of a program.

    An operation of a backward pass (run inside ``part('backward')``) belongs
    to the part whose forward operation made its node.

    Args:
        device: Type of the device: ``'meta'`` counts without one, on tensors
            without data.

    Attributes:
        operations: By (part, name): those that compute something. Views and
            allocations are left out.
        reads: By name; for each one the host waits for the device.
        copies: Copies to the device for which the host waits.
    """

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device = device
        self._parts = ['other']
        self.restart()

    def restart(self) -> None:
        """Count from 0."""
        self.operations: Counter = Counter()
        self.reads: Counter = Counter()
        self.copies = 0
        self._nodes: list[tuple[int, int, str]] = []

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What runs inside counts as this part; the innermost one wins."""
        first = torch.autograd._get_sequence_nr()
        self._parts.append(name)
        try:
            yield
        finally:
            self._parts.pop()
            last = torch.autograd._get_sequence_nr()
            self._nodes.append((first, last, name))

    def by_part(self) -> Counter:
        """Operations of each part."""
        parts: Counter = Counter()
        for (part, _), count in self.operations.items():
            parts[part] += count
        return parts

    def __torch_dispatch__(
        self,
        func: Any,
        types: tuple,
        args: tuple = (),
        kwargs: dict | None = None,
    ) -> Any:
        """Runs and counts one operation."""
        name = func.overloadpacket.__name__
        given = tree_leaves((args, kwargs))
        out = _run(func, name, args, kwargs or {})
        here, there = self._sides(given), self._sides(tree_leaves(out))
        if True in here | there:
            self._count_read(name, given, here, there)
            free = func.is_view or name in ALLOCATIONS | FREE | VALUES
            if not free:
                self.operations[self._part(), name] += 1
        return out

    def _sides(self, values: list) -> set[bool]:
        """Whether there are tensors on the device, and on others."""
        tensors = [x for x in values if isinstance(x, Tensor)]
        return {x.device.type == self.device for x in tensors}

    def _count_read(
        self, name: str, given: list, here: set[bool], there: set[bool]
    ) -> None:
        waits = name in VALUES | SIZES or _by_condition(name, given)
        if name in ('_to_copy', 'copy_') and len(here | there) > 1:
            blocking = not any(x is True for x in given)
            waits = blocking and there == {False}
            self.copies += blocking and there == {True}
        self.reads[name] += waits

    def _part(self) -> str:
        node = torch._C._current_autograd_node()
        if self._parts[-1] != 'backward' or node is None:
            return self._parts[-1]
        number = node._sequence_nr()
        owners = [
            (last - first, name)
            for first, last, name in self._nodes
            if first <= number < last
        ]
        return f'{min(owners)[1]}, backward' if owners else 'backward'


def _by_condition(name: str, given: list) -> bool:
    """Whether it indexes with a condition, whose places are counted first."""
    tensors = [x for x in given[1:] if isinstance(x, Tensor)]
    return name in INDEXED and any(x.dtype == torch.bool for x in tensors)


def _run(func: Any, name: str, args: tuple, kwargs: dict) -> Any:
    """The operation; without data, zeros are read and all places chosen."""
    if not args or not isinstance(args[0], Tensor) or not args[0].is_meta:
        return func(*args, **kwargs)
    if name == '_local_scalar_dense':
        return torch.zeros((), dtype=args[0].dtype, device='cpu').item()
    if name == '_to_copy' and kwargs.get('device') == torch.device('cpu'):
        dtype = kwargs.get('dtype') or args[0].dtype
        return torch.zeros(args[0].shape, dtype=dtype, device='cpu')
    if name in INDEXED:
        args = args[0], [_all_places(x) for x in args[1]], *args[2:]
    return func(*args, **kwargs)


def _all_places(index: Tensor | None) -> Tensor | None:
    if index is None or index.dtype != torch.bool:
        return index
    return torch.empty(index.numel(), dtype=torch.int64, device='meta')
