"""Deep copies of networks."""

import copy
from collections import OrderedDict
from typing import Any, TypeVar

from torch import Tensor, nn

Module = TypeVar('Module', bound=nn.Module)


def copy_network(module: Module, weights: bool = True) -> Module:
    """A deep copy, also of a network whose layers store computed weights.

    ``weight_norm``, ``spectral_norm`` and ``prune`` of ``torch.nn.utils``
    store the weight that they compute as an attribute of the layer. After a
    pass with gradients it is part of an autograd graph, and ``copy.deepcopy``
    refuses such tensors. The copy gets only their values.

    Args:
        module: Any network.
        weights: If false, the copy shares the module's parameters and has no
            load-state-dict hooks, which may belong to a larger network; so
            nothing may be loaded into it.
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
                # a module has ten empty dicts, which deepcopy copies slowly
                memo[id(value)] = type(value)()
    return copy.deepcopy(module, memo)
