"""Convs and linear layers over listed channels: how they are computed.

An engine's ``run(x, inputs, outputs)`` takes what lies in the listed input
channels and gives the listed output channels; ``None`` lists all.
"""

from __future__ import annotations

from types import ModuleType
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fgc_mm.sites.layout import is_depthwise

Clamp = tuple[float, float]
NO_CLAMP: Clamp = (-float('inf'), float('inf'))


class Engine(Protocol):
    """Computes one layer for any lists of channels."""

    def run(
        self, x: Tensor, inputs: Tensor | None, outputs: Tensor | None
    ) -> Tensor:
        """``x`` holds the listed inputs only; so does what comes back."""


class TorchConv:
    """Gathers the weights of the open channels, then torch's own conv."""

    def __init__(self, layer: nn.Conv2d, clamp: Clamp = NO_CLAMP) -> None:
        self.layer = layer
        self.clamp = clamp

    def run(
        self, x: Tensor, inputs: Tensor | None, outputs: Tensor | None
    ) -> Tensor:
        """As in :class:`Engine`."""
        layer, groups = self.layer, self.layer.groups
        weight, bias = _listed(layer.weight, layer.bias, outputs)
        if is_depthwise(layer):
            groups = len(weight)
        elif inputs is not None:
            weight = weight.index_select(1, inputs)
        y = convolved(layer, x, weight, bias, groups)
        return y if self.clamp == NO_CLAMP else y.clamp_(*self.clamp)


def convolved(
    layer: nn.Conv2d,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    groups: int,
) -> Tensor:
    """What a conv does to its input, by other weights.

    Args:
        layer: The conv.
        x: (N, C_in, H, W).
        weight: (C_out, C_in / groups, kh, kw).
        bias: (C_out,) if any.
        groups: Of these weights.
    """
    padding = layer.padding
    if layer.padding_mode != 'zeros':
        (top, bottom), (left, right) = paddings(layer)
        x = F.pad(x, (left, right, top, bottom), layer.padding_mode)
        padding = 0
    return F.conv2d(
        x, weight, bias, layer.stride, padding, layer.dilation, groups
    )


def paddings(layer: nn.Conv2d) -> list[tuple[int, int]]:
    """Pixels before and behind every row and column: ((top, bottom), ...)."""
    if layer.padding == 'valid':
        return [(0, 0)] * 2
    if layer.padding == 'same':  # as torch: the odd one behind
        whole = [
            dilation * (size - 1)
            for dilation, size in zip(layer.dilation, layer.kernel_size)
        ]
        return [(pixels // 2, pixels - pixels // 2) for pixels in whole]
    return [(pixels, pixels) for pixels in layer.padding]


def explicit_padding(layer: nn.Conv2d) -> str | tuple[int, ...]:
    """In pixels, where it is as much before as behind; else its name."""
    pads = paddings(layer)
    if any(before != behind for before, behind in pads):
        return layer.padding
    return tuple(before for before, _ in pads)


class TorchLinear:
    """Gathers the weights of the open channels, then a matrix product."""

    def __init__(self, layer: nn.Linear) -> None:
        self.layer = layer
        # a consumer's input channels as rows, so that gathering is copying
        self.by_input = layer.weight.detach().t().contiguous()

    def run(
        self, x: Tensor, inputs: Tensor | None, outputs: Tensor | None
    ) -> Tensor:
        """As in :class:`Engine`."""
        if inputs is None:
            return F.linear(
                x, *_listed(self.layer.weight, self.layer.bias, outputs)
            )
        weight = self.by_input.index_select(0, inputs)
        bias = self.layer.bias
        if outputs is not None:
            weight = weight.index_select(1, outputs)
            bias = None if bias is None else bias.index_select(0, outputs)
        return F.linear(x, weight.t(), bias)


def kernel_conv(
    kernel: ModuleType, layer: nn.Conv2d, clamp: Clamp, by_input: bool
) -> Engine:
    """The compiled engine of a conv that it can do.

    Args:
        kernel: The compiled kernel.
        layer: The conv; see :func:`kernel_can`.
        clamp: Least and most that comes out.
        by_input: Its input channels are listed: the weights of one lie side
            by side, so that few cache lines hold what is read.
    """
    weight = layer.weight.detach()
    bias = layer.bias
    if bias is None:
        bias = weight.new_zeros(layer.out_channels)
    geometry = [*layer.stride, *layer.padding, *layer.dilation]
    return kernel.Conv(
        weight,
        bias.detach(),
        geometry,
        is_depthwise(layer),
        *clamp,
        by_input,
    )


def kernel_can(layer: nn.Module) -> bool:
    """Whether the compiled engine knows such a layer."""
    return (
        isinstance(layer, nn.Conv2d)
        and (layer.groups == 1 or is_depthwise(layer))
        and layer.padding_mode == 'zeros'
        and not isinstance(layer.padding, str)
        and layer.weight.dtype == torch.float32
        and layer.weight.device.type == 'cpu'
    )


def _listed(
    weight: Tensor, bias: Tensor | None, outputs: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    if outputs is None:
        return weight, bias
    chosen = None if bias is None else bias.index_select(0, outputs)
    return weight.index_select(0, outputs), chosen
