"""Layers of a dynamic network: they compute what is open."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor, nn

from fgc_mm.deploy.dynamic.engines import (
    NO_CLAMP,
    Clamp,
    Engine,
    TorchConv,
    TorchLinear,
    explicit_padding,
    kernel_can,
    kernel_conv,
    paddings,
)
from fgc_mm.deploy.dynamic.gate import spread
from fgc_mm.deploy.dynamic.kernel import load_kernel
from fgc_mm.deploy.dynamic.port import DynamicPort, DynamicState
from fgc_mm.deploy.dynamic.tracing import refuse_tracing
from fgc_mm.sites.call import state_of
from fgc_mm.sites.layout import is_depthwise, mask_input

ACTIVATED = '_fgc_activated'


def is_plain(layer: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a layer is torch's own, or mmcv's wrapper of it.

    A subclass may compute something else (standardised weights, say).
    """
    wrapper = type(layer).__module__ == 'mmcv.cnn.bricks.wrappers'
    return type(layer) is kind or (wrapper and isinstance(layer, kind))


class DynamicLayer(nn.Module):
    """What dynamic convs and linear layers share.

    Attributes:
        reads: The site whose channels are the input's, if any.
        writes: The site whose channels are the output's, if any.
        decides: Whether the layer is that site's producer.
        engine_name: ``'kernel'`` or ``'torch'``, what computes listed
            channels.
        dense_engine: The same, where all channels are there.
        seconds: Where the time of every call is noted, while somebody looks.
    """

    channel_dim = 1

    def join(self, compiled: bool) -> None:
        """Make the state beside the parameters.

        Args:
            compiled: The compiled kernel is there.
        """
        self.reads: DynamicPort | None = None
        self.writes: DynamicPort | None = None
        self.decides = False
        self.seconds: list[float] | None = None
        self.engine_name = 'kernel' if compiled else 'torch'
        self.dense_engine = self.engine_name
        self._engines: dict[str, Engine] = {}

    def __getstate__(self) -> dict[str, Any]:
        return dict(self.__dict__, _engines={})  # made anew

    def forward(self, x: Tensor) -> Tensor:
        """The open channels of the output, from those of the input."""
        refuse_tracing(x)
        if self.seconds is None:
            return self._forward(x)
        started = time.perf_counter()
        y = self._forward(x)
        self.seconds.append(time.perf_counter() - started)
        return y

    def _forward(self, x: Tensor) -> Tensor:
        source, target = _state(self.reads), _state(self.writes)
        inputs = outputs = None
        if source is not None:
            x, inputs = self._of_source(x, source), source.index
        if target is not None:
            if self.decides:
                target.port.decide(target, self, x, inputs)
            if target.empty:
                return self._constant(x, None, 1)
            outputs = target.index
        if source is not None and source.empty:
            return self._constant(x, outputs, None)
        return self.run(x, inputs, outputs)

    def _of_source(self, x: Tensor, source: DynamicState) -> Tensor:
        """What the masked network would read, the open channels of it."""
        if source.empty:
            return x.narrow(self.channel_dim, 0, 0)
        if source.index is not None:
            if source.factors is None:
                return x
            return mask_input(self, x, source.factors[None], None)
        mask = source.mask
        if mask is None:
            return x
        alone = len(source.port.site.consumers) == 1
        return mask_input(self, x, mask, None, inplace=alone)

    def widen(self, x: Tensor) -> Tensor:
        """The whole input, masked, for a gate that knows no lists."""
        source = _state(self.reads)
        if source is None:
            return x
        if source.index is None:
            mask = source.mask
            return x if mask is None else mask_input(self, x, mask, None)
        x = self._of_source(x, source).movedim(self.channel_dim, 1)
        wide = spread(x, source.index, source.port.site.channels)
        return wide.movedim(1, self.channel_dim)

    def run(
        self, x: Tensor, inputs: Tensor | None, outputs: Tensor | None
    ) -> Tensor:
        """By the engine in use, which is made when first needed."""
        dense = inputs is None and outputs is None
        name = self.dense_engine if dense else self.engine_name
        return self.engine(name).run(x, inputs, outputs)

    def engine(self, name: str) -> Engine:
        """The engine of a name, made when first asked for."""
        engine = self._engines.get(name)
        if engine is None:
            engine = self._engines[name] = self.make_engine(name)
        return engine

    def forget(self) -> None:
        """The weights have changed."""
        self._engines.clear()

    def _constant(
        self, x: Tensor, outputs: Tensor | None, zeros: int | None
    ) -> Tensor:
        """What comes out if nothing came in: the bias, or some zeros."""
        shape = self.output_shape(x)
        if zeros is not None:
            values = x.new_zeros(zeros)
        elif self.bias is None:
            values = x.new_zeros(shape[self.channel_dim])
        else:
            values = self.bias
        if outputs is not None:
            values = values.index_select(0, outputs)
        shape[self.channel_dim] = len(values)
        after = (len(shape) - 1 - self.channel_dim) % len(shape)
        return values.reshape(-1, *[1] * after).expand(shape).clone()


def _state(port: DynamicPort | None) -> DynamicState | None:
    """Of the call that is running; ``None`` in a dense pass."""
    return None if port is None else state_of(port)


class DynamicConv(nn.Conv2d, DynamicLayer):
    """A conv, with its norm folded in and perhaps an activation."""

    clamp: Clamp = NO_CLAMP

    @classmethod
    def of(
        cls, conv: nn.Conv2d, weight: Tensor, bias: Tensor, compiled: bool
    ) -> DynamicConv:
        """From a plain conv and the weights that it is to have."""
        layer = torch.nn.utils.skip_init(
            cls,
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,
            conv.stride,
            explicit_padding(conv),
            conv.dilation,
            conv.groups,
            True,
            conv.padding_mode,
        )
        layer.weight.data, layer.bias.data = weight, bias
        layer.join(compiled and kernel_can(layer))
        return layer

    def _forward(self, x: Tensor) -> Tensor:
        y = super()._forward(x)
        if self.clamp is not NO_CLAMP:
            setattr(y, ACTIVATED, True)
        return y

    forward = DynamicLayer.forward

    def make_engine(self, name: str) -> Engine:
        """The engine of a name."""
        if name == 'kernel':
            return kernel_conv(
                load_kernel()[0], self, self.clamp, self.reads is not None
            )
        return TorchConv(self, self.clamp)

    def _constant(
        self, x: Tensor, outputs: Tensor | None, zeros: int | None
    ) -> Tensor:
        return super()._constant(x, outputs, zeros).clamp_(*self.clamp)

    def output_shape(self, x: Tensor) -> list[int]:
        """Of what comes out for ``x``, with all channels."""
        sizes = [
            (size + pad - dilation * (kernel - 1) - 1) // stride + 1
            for size, pad, dilation, kernel, stride in zip(
                x.shape[2:],
                map(sum, paddings(self)),
                self.dilation,
                self.kernel_size,
                self.stride,
            )
        ]
        return [len(x), self.out_channels, *sizes]


class DynamicDepthwise(DynamicConv):
    """A conv within a site: it reads what it writes, channel by channel."""


class DynamicLinear(nn.Linear, DynamicLayer):
    """A linear layer over its last dimension."""

    channel_dim = -1
    forward = DynamicLayer.forward

    @classmethod
    def of(cls, linear: nn.Linear) -> DynamicLinear:
        """With a plain linear layer's parameters."""
        layer = torch.nn.utils.skip_init(
            cls,
            linear.in_features,
            linear.out_features,
            linear.bias is not None,
        )
        layer.weight.data = linear.weight.data
        if linear.bias is not None:
            layer.bias.data = linear.bias.data
        layer.join(compiled=False)
        return layer

    def make_engine(self, name: str) -> Engine:
        """There is but one."""
        assert name == 'torch'
        return TorchLinear(self)

    def output_shape(self, x: Tensor) -> list[int]:
        """Of what comes out for ``x``, with all channels."""
        return [*x.shape[:-1], self.out_features]


class DoneActivation(nn.Module):
    """An activation that leaves alone what a conv has clamped already."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """As the activation, once."""
        if getattr(x, ACTIVATED, False):
            delattr(x, ACTIVATED)
            return x
        return self.activation(x)


class FastMaxPool(nn.Module):
    """Max pooling by the kernel; torch's is slow on one image's maps."""

    def __init__(self, pool: nn.MaxPool2d) -> None:
        super().__init__()
        stride = pool.kernel_size if pool.stride is None else pool.stride
        self.geometry = (pool.kernel_size, stride, pool.padding)

    def forward(self, x: Tensor) -> Tensor:
        """As ``nn.MaxPool2d``."""
        refuse_tracing(x)
        return load_kernel()[0].max_pool(x, *self.geometry)

    @staticmethod
    def can(pool: nn.Module) -> bool:
        """Whether the kernel knows such a pooling."""
        return (
            is_plain(pool, nn.MaxPool2d)
            and not (pool.return_indices or pool.ceil_mode)
            and pool.dilation == 1
            and isinstance(pool.kernel_size, int)
            and isinstance(pool.stride, (int, type(None)))
            and isinstance(pool.padding, int)
        )


def dynamic_layer(
    layer: nn.Module, weight: Tensor, bias: Tensor, compiled: bool
) -> DynamicConv:
    """A conv's dynamic version, with folded weights."""
    kind = DynamicDepthwise if is_depthwise(layer) else DynamicConv
    return kind.of(layer, weight, bias, compiled)
