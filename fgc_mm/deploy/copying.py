"""Copies of networks."""

import copy
from collections import OrderedDict
from typing import Any, TypeVar

from torch import Tensor, nn

Module = TypeVar('Module', bound=nn.Module)


def copied(module: Module, weights: bool = True) -> Module:
    """A deep copy, also of a network whose layers keep computed weights.

    ``weight_norm``, ``spectral_norm`` and ``prune`` of ``torch.nn.utils``
    keep the weight that they compute as an attribute of the layer; after a
    pass with gradients it belongs to a graph, and ``copy.deepcopy`` refuses
    such tensors. The copy has their values; its next pass computes them.

    Args:
        module: Any network.
        weights: Else the copy's parameters are the module's own, and
            nothing is to be loaded into it: what runs when weights are
            loaded may belong to a larger network and is left out.
    """
    memo: dict[int, Any] = {}
    for part in module.modules():
        if not weights:
            memo |= {id(x): x for x in part._parameters.values()}
            memo[id(part._load_state_dict_pre_hooks)] = OrderedDict()
        for value in vars(part).values():
            if isinstance(value, Tensor) and value.grad_fn is not None:
                memo[id(value)] = value.detach().clone()
            elif type(value) in (dict, OrderedDict) and not value:
                # a module has ten of them, which deepcopy is slow at
                memo[id(value)] = type(value)()
    return copy.deepcopy(module, memo)
