import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _Largest(TorchDispatchMode):
    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for one in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(one, torch.Tensor) and not func.is_view:
                self.elements = max(self.elements, one.numel())
        return out


@pytest.fixture
def largest():
    """Inside it, counts the elements of the largest tensor an op makes."""
    return _Largest()


class _OneDevice(TorchDispatchMode):
    """Refuses operations that CUDA refuses and the meta device allows."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = [
            x.device for x in tree_leaves((args, kwargs))
            if isinstance(x, torch.Tensor) and x.dim()
        ]  # fmt: skip
        name = func.overloadpacket.__name__
        assert name in ('_to_copy', 'copy_') or len({*given}) < 2, name
        return func(*args, **(kwargs or {}))


@pytest.fixture
def one_device():
    """Inside it, an operation on tensors of two devices is an error."""
    return _OneDevice()
