"""Removing channels from a network, and checking the result."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fgc_mm.deploy.comparing import TOLERANCE, largest_gap
from fgc_mm.errors import FGCError
from fgc_mm.models import ChannelMap
from fgc_mm.models.layer_slice import LayerSlice, map_widths, shrink_layer
from fgc_mm.sites.copying import copy_network
from fgc_mm.sites.layer_channels import is_depthwise

Channels = Mapping[str, Set[int]]


@dataclass(frozen=True)
class RemovedChannels:
    """Channels to remove, by path of the layer."""

    outputs: Channels
    inputs: Channels

    def channel_map(self, network: nn.Module) -> ChannelMap:
        """What remains of a network.

        Raises:
            FGCError: The groups of a layer would lose different numbers.
        """
        return ChannelMap.of(
            network,
            {p: _remaining(network, p, 0, c) for p, c in self.outputs.items()},
            {p: _remaining(network, p, 1, c) for p, c in self.inputs.items()},
        )

    @torch.no_grad()
    def problem(
        self,
        network: nn.Module,
        images: Tensor,
        own_statistics: bool = True,
    ) -> str:
        """Why a network cannot lose these channels; empty if it can.

        Without them its features must equal, within ``TOLERANCE``, those
        of the whole network if no layer reads the channels.

        Args:
            network: The whole one, in evaluation.
            images: (N, 3, H, W) for the check.
            own_statistics: Whether a norm over several channels (group norm,
                layer norm) may have the statistics of the remaining channels
                only.
        """
        try:
            channel_map = self.channel_map(network)
            with shrunk(network, channel_map):
                got, message = _try_run(network, images)
        except FGCError as error:
            return str(error)
        if message:
            return message
        with _without_readers(network, channel_map, own_statistics):
            wanted = network(images)
        gap = largest_gap(wanted, got)
        if gap == float('inf'):
            return 'its features have other shapes'
        return '' if gap <= TOLERANCE else f'features differ by {gap:.1e}'


def _try_run(network: nn.Module, images: Tensor) -> tuple[Any, str]:
    """A network's outputs, and its error message if it fails."""
    try:
        return network(images), ''
    except Exception as error:  # depends on its code
        return None, short_message(error) or type(error).__name__


def short_message(error: Exception) -> str:
    """The first 80 characters of the message of an error, on one line."""
    return ' '.join(str(error).split())[:80]


def _remaining(
    network: nn.Module, path: str, side: int, gone: Set[int]
) -> list[int]:
    widths = map_widths(network, path)
    if side >= len(widths):
        kind = type(network.get_submodule(path)).__name__
        raise FGCError(
            f'{path} ({kind}) reads the channels, and a channel map only '
            'removes inputs of convs and linear layers.'
        )
    return [c for c in range(widths[side]) if c not in gone]


@contextmanager
def shrunk(network: nn.Module, channel_map: ChannelMap) -> Iterator[None]:
    """Shrink a network to a channel map within a ``with`` block.

    For checks: a deep copy of a network takes longer than a forward pass.
    The network's tensors are not changed.

    Raises:
        FGCError: The groups of a norm would have different widths.
    """
    with ExitStack() as stack:
        for path, kept in channel_map.layers.items():
            layer = network.get_submodule(path)
            stack.enter_context(_restore_attributes(layer))
            shrink_layer(layer, kept)
        yield


@contextmanager
def _restore_attributes(layer: nn.Module) -> Iterator[None]:
    """Restore a layer's attributes, parameters and buffers afterwards."""
    attributes = vars(layer).copy()
    own = {x: vars(layer)[x].copy() for x in ('_parameters', '_buffers')}
    try:
        yield
    finally:
        vars(layer).clear()
        vars(layer).update(attributes)
        for name, tensors in own.items():
            vars(layer)[name].clear()
            vars(layer)[name].update(tensors)


@contextmanager
def _without_readers(
    network: nn.Module, channel_map: ChannelMap, own_statistics: bool
) -> Iterator[None]:
    """Run the whole network so that no layer reads the removed channels."""
    with ExitStack() as stack:
        for path, kept in channel_map.layers.items():
            layer, handle = network.get_submodule(path), None
            if kept.dense and not is_depthwise(layer):
                # depthwise convs pass them on; their readers are masked
                flags = torch.zeros(kept.widths[1])
                flags[list(kept.inputs)] = 1
                handle = layer.register_forward_pre_hook(
                    partial(_close, flags)
                )
            elif not kept.dense and own_statistics:
                small = copy_network(layer)
                shrink_layer(small, kept)
                handle = layer.register_forward_hook(
                    partial(_norm_kept_channels, kept, small)
                )
            if handle is not None:
                stack.callback(handle.remove)
        yield


def _close(flags: Tensor, layer: nn.Module, args: tuple) -> tuple:
    x = args[0]
    if not isinstance(layer, nn.Linear):
        flags = flags.reshape(-1, *[1] * (x.dim() - 2))
    return (x * flags.to(x), *args[1:])


def _norm_kept_channels(
    kept: LayerSlice,
    small: nn.Module,
    layer: nn.Module,
    args: Any,
    output: Tensor,
) -> Tensor:
    """Output of a whole norm, with the kept channels from the small one."""
    x = args[0]
    dim = _channel_dim(layer, x, kept.widths[0])
    index = torch.tensor(kept.outputs, device=x.device)
    return output.index_copy(dim, index, small(x.index_select(dim, index)))


def _channel_dim(layer: nn.Module, x: Tensor, width: int) -> int:
    """Index of the channel dimension in a per-channel module's input."""
    if type(layer) is not nn.LayerNorm and x.shape[1] == width:
        return 1
    return x.dim() - len(getattr(layer, 'normalized_shape', (width,)))
