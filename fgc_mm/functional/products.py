"""The tensor products that a torch operator computes.

Products are counted where they are computed, so it does not matter which
module or function calls the operator: ``nn.Linear``, ``F.linear`` on a slice
of a weight, ``F.conv2d`` on a parameter, ``@``, ``einsum``, attention.
Elementwise multiplications (norms, masks, scales), those with one vector
(spectral norms) and ``nn.Bilinear`` are not counted. The counts are those of
``torch.utils.flop_counter`` (2 FLOPs = 1 MAC), which lacks the CPU's fused
attention, recurrent layers and deformable convs.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten


@dataclass(frozen=True)
class Product:
    """One product of two tensors.

    Attributes:
        unit: MACs of one input channel with one output channel.
        in_channels: Channels that are summed over.
        out_channels: Channels of the result.
        groups: Groups of channels; only channels of the same group are
            multiplied.
        factors: The two tensors; the second is the weight, if there is one.
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


def products_of(operator: Any, args: Sequence[Any], out: Any) -> list[Product]:
    """The tensor products that a call has computed; none for most.

    Args:
        operator: As dispatched by torch, e.g. ``torch.ops.aten.mm.default``.
        args: Its arguments.
        out: What it returned.
    """
    packet = operator._overloadpacket
    formula = FORMULAS.get(packet) or OTHERS.get(packet._qualified_op_name)
    return [] if formula is None else formula(args, out)


def _matrices(first: Tensor, second: Tensor) -> Product:
    """(..., m, k) @ (..., k, n): each row of the first is a position."""
    *batch, rows, reads = first.shape
    unit = math.prod(batch) * rows
    return Product(unit, reads, second.shape[-1], 1, (first, second))


def _mm(args: Sequence[Any], _: Any) -> list[Product]:
    return [_matrices(args[0], args[1])]


def _addmm(args: Sequence[Any], _: Any) -> list[Product]:
    return [_matrices(args[1], args[2])]


def _convolution(args: Sequence[Any], out: Tensor) -> list[Product]:
    x, weight = args[:2]
    transposed, groups = args[6], args[8]
    # every position is multiplied by every element of the kernel
    positions = (x if transposed else out).shape[2:]
    unit = len(x) * math.prod(positions) * math.prod(weight.shape[2:])
    return [Product(unit, x.shape[1], out.shape[1], groups, (x, weight))]


def _deformable(args: Sequence[Any], out: Tensor) -> list[Product]:
    """Without the interpolation of the pixels."""
    x, weight = args[:2]
    groups = x.shape[1] // weight.shape[1]
    positions = len(x) * math.prod(out.shape[2:])
    unit = positions * math.prod(weight.shape[2:])
    return [Product(unit, x.shape[1], out.shape[1], groups, (x, weight))]


def _attention(args: Sequence[Any], _: Any) -> list[Product]:
    """softmax(q k^T) v; a causal mask is not considered."""
    query, key, value = args[:3]
    *batch, rows, width = query.shape
    unit, keys = math.prod(batch) * rows, key.shape[-2]
    return [
        Product(unit, width, keys, 1, (query, key)),
        Product(unit, keys, value.shape[-1], 1, (query, value)),
    ]


def _recurrent(x: Tensor, weights: Sequence[Tensor]) -> list[Product]:
    """Every weight matrix of a recurrent layer is used once per step."""
    steps = math.prod(x.shape[:-1])
    return [
        Product(steps, weight.shape[1], weight.shape[0], 1, (x, weight))
        for weight in weights
        if weight.dim() == 2
    ]


def _mkldnn_rnn(args: Sequence[Any], _: Any) -> list[Product]:
    return _recurrent(args[0], args[1:5])


def _cudnn_rnn(args: Sequence[Any], _: Any) -> list[Product]:
    return _recurrent(args[0], args[1])


Formula = Callable[[Sequence[Any], Any], list[Product]]
FORMULAS: dict[Any, Formula] = {
    aten.mm: _mm,
    aten.bmm: _mm,
    aten._int_mm: _mm,
    aten._scaled_mm: _mm,
    aten.addmm: _addmm,
    aten.baddbmm: _addmm,
    aten.addbmm: _addmm,
    aten._addmm_activation: _addmm,
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
# of other libraries, which register them when they are imported
OTHERS: dict[str, Formula] = {'torchvision::deform_conv2d': _deformable}
