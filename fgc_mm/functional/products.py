"""The products of tensors that run in a context, as torch dispatches them.

A product is counted where it is computed, so it does not matter which module
or function asked for it: ``nn.Linear``, ``F.linear`` on a slice of a weight,
``F.conv2d`` on a parameter, ``@``, ``einsum``, attention. Elementwise
multiplications (norms, masks, scales) are none. The counts are those of
``torch.utils.flop_counter`` (2 FLOPs = 1 MAC) wherever that knows the
operator.
"""

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
# the switch of torch's fused attention is one for the whole process
_SWITCH = threading.RLock()


@dataclass(frozen=True)
class Product:
    """One product of two tensors.

    Attributes:
        unit: MACs of one input channel with one output channel.
        in_channels: Channels that are summed over.
        out_channels: Channels of the result.
        groups: Groups of channels, of which each meets its own only.
        factors: The two tensors; the second is the weight, if one is.
    """

    unit: int
    in_channels: int
    out_channels: int
    groups: int
    factors: tuple[Tensor, Tensor]

    @property
    def macs(self) -> int:
        """MACs of the whole product."""
        return self.unit * self.in_channels * self.out_channels // self.groups


@contextmanager
def watch_products(see: Callable[[Product], None]) -> Iterator[None]:
    """Call ``see`` for every product that this thread computes.

    ``nn.MultiheadAttention`` does not take its fused path inside. Products
    on the meta device, which only give shapes, are left out.

    Args:
        see: Gets each product, after it has been computed.
    """
    with _SWITCH:
        fused = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            with _ProductMode(see):
                yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fused)


class _ProductMode(TorchDispatchMode):
    def __init__(self, see: Callable[[Product], None]) -> None:
        super().__init__()
        self._see = see

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        formula = FORMULAS.get(func._overloadpacket)
        if formula is None:
            return self._run_parts(func, args, kwargs)
        out = func(*args, **kwargs)
        for product in formula(args, kwargs, out):
            if not product.factors[0].is_meta:
                self._see(product)
        return out

    def _run_parts(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Run an operator that is no product, but may be made of some.

        Inference tensors reach this mode before torch takes such operators
        (``aten.linear``) apart.
        """
        if func is not torch.ops.prim.device.default:
            with self:
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        return func(*args, **kwargs)


def _matrices(first: Tensor, second: Tensor) -> Product:
    """(..., m, k) @ (..., k, n): each row of the first is a position."""
    *batch, rows, reads = first.shape
    unit = math.prod(batch) * rows
    return Product(unit, reads, second.shape[-1], 1, (first, second))


def _mm(args: Sequence[Any], *_: Any) -> list[Product]:
    return [_matrices(args[0], args[1])]


def _addmm(args: Sequence[Any], *_: Any) -> list[Product]:
    return [_matrices(args[1], args[2])]


def _mv(args: Sequence[Any], *_: Any) -> list[Product]:
    return [_matrices(args[-1].unsqueeze(0), args[-2].t())]


def _addmv(args: Sequence[Any], *_: Any) -> list[Product]:
    return _mv(args[1:3])


def _dot(args: Sequence[Any], *_: Any) -> list[Product]:
    return [_matrices(args[0].unsqueeze(0), args[1].unsqueeze(1))]


def _convolution(
    args: Sequence[Any], kwargs: dict[str, Any], out: Tensor
) -> list[Product]:
    x, weight = args[:2]
    transposed, groups = args[6], args[8]
    out_channels = out.shape[1]
    # every position of one side meets every element of the kernel
    positions = (x if transposed else out).shape[2:]
    unit = len(x) * math.prod(positions) * math.prod(weight.shape[2:])
    factors = (x, weight)
    return [Product(unit, x.shape[1], out_channels, groups, factors)]


def _attention(args: Sequence[Any], *_: Any) -> list[Product]:
    """softmax(q k^T) v; a causal mask saves nothing in this count."""
    query, key, value = args[:3]
    *batch, rows, width = query.shape
    unit, keys = math.prod(batch) * rows, key.shape[-2]
    return [
        Product(unit, width, keys, 1, (query, key)),
        Product(unit, keys, value.shape[-1], 1, (query, value)),
    ]


def _recurrent(x: Tensor, weights: Sequence[Tensor]) -> list[Product]:
    """Every matrix of a recurrent layer meets every step once."""
    steps = math.prod(x.shape[:-1])
    return [
        Product(steps, weight.shape[1], weight.shape[0], 1, (x, weight))
        for weight in weights
        if weight.dim() == 2
    ]


def _mkldnn_rnn(args: Sequence[Any], *_: Any) -> list[Product]:
    return _recurrent(args[0], args[1:5])


def _cudnn_rnn(args: Sequence[Any], *_: Any) -> list[Product]:
    return _recurrent(args[0], args[1])


Formula = Callable[[Sequence[Any], dict[str, Any], Any], list[Product]]
FORMULAS: dict[Any, Formula] = {
    aten.mm: _mm,
    aten.bmm: _mm,
    aten._int_mm: _mm,
    aten._scaled_mm: _mm,
    aten.addmm: _addmm,
    aten.baddbmm: _addmm,
    aten.addbmm: _addmm,
    aten._addmm_activation: _addmm,
    aten.mv: _mv,
    aten.addmv: _addmv,
    aten.dot: _dot,
    aten.vdot: _dot,
    aten.convolution: _convolution,
    aten._convolution: _convolution,
    aten._scaled_dot_product_efficient_attention: _attention,
    aten._scaled_dot_product_flash_attention: _attention,
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    aten._scaled_dot_product_cudnn_attention: _attention,
    aten._scaled_dot_product_fused_attention_overrideable: _attention,
    aten.mkldnn_rnn_layer: _mkldnn_rnn,
    aten._cudnn_rnn: _cudnn_rnn,
}
