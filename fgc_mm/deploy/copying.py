"""Copies of networks."""

import copy
from collections import OrderedDict
from typing import Any, TypeVar

from torch import Tensor, nn

Module = TypeVar('Module', bound=nn.Module)


def copied(module: Module) -> Module:
    """A deep copy, also of a network whose layers keep computed weights.

    ``weight_norm``, ``spectral_norm`` and ``prune`` of ``torch.nn.utils``
    keep the weight that they compute as an attribute of the layer; after a
    pass with gradients it belongs to a graph, and ``copy.deepcopy`` refuses
    such tensors. The copy has their values; its next pass computes them.

    Args:
        module: Any network.
    """
    memo: dict[int, Any] = {}
    for part in module.modules():
        for value in vars(part).values():
            if isinstance(value, Tensor) and value.grad_fn is not None:
                memo[id(value)] = value.detach().clone()
            elif type(value) in (dict, OrderedDict) and not value:
                # a module has ten of them, which deepcopy is slow at
                memo[id(value)] = type(value)()
    return copy.deepcopy(module, memo)
