"""Calls a function for every tensor product that torch computes."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fgc_mm.functional.products import Product, products_of

# torch's setting for fused attention is global to the process
_SETTING_LOCK = threading.RLock()


@contextmanager
def watch_products(callback: Callable[[Product], None]) -> Iterator[None]:
    """Call ``callback`` for every product that this thread has computed.

    In the block, the fused path of ``nn.MultiheadAttention`` is disabled.
    Products on the meta device (shape inference only) are left out.
    """
    with _SETTING_LOCK:
        fused = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            with _ProductMode(callback):
                yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fused)


class _ProductMode(TorchDispatchMode):
    def __init__(self, callback: Callable[[Product], None]) -> None:
        super().__init__()
        self._callback = callback

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is not torch.ops.prim.device.default:
            # inference tensors arrive here before aten.linear is decomposed
            with self:
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        out = func(*args, **kwargs)
        for product in products_of(func, args, out):
            if not product.factors[0].is_meta:
                self._callback(product)
        return out
