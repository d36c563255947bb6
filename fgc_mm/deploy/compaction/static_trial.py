"""Checking that a network works without some channels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fgc_mm.deploy.compaction.equivalence import (
    CloseChannels,
    flatten_outputs,
    largest_gap,
)
from fgc_mm.deploy.compaction.shrunk import shrunk
from fgc_mm.deploy.copying import copy_network
from fgc_mm.errors import FGCError
from fgc_mm.models import ChannelMap
from fgc_mm.models.layer_slice import (
    SLICED_LAYERS,
    LayerSlice,
    map_widths,
    shrink_layer,
)
from fgc_mm.sites.layer_channels import is_depthwise

Channels = dict[str, set[int]]


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
        self, network: nn.Module, images: Tensor, tolerance: float
    ) -> str:
        """Why a network cannot lose these channels; empty if it can.

        Without them it must have the features of the whole network in which
        no layer reads them. For a norm over several channels (group norm,
        layer norm), that means statistics of the other channels only.

        Args:
            network: The whole one, in evaluation.
            images: (N, 3, H, W) for the check.
            tolerance: Difference allowed, relative to the largest feature.
        """
        try:
            channel_map = self.channel_map(network)
            with shrunk(network, channel_map):
                got, message = _try_run(network, images)
        except FGCError as error:
            return str(error)
        if message:
            return message
        with _without_readers(network, channel_map):
            wanted = network(images)
        if len(flatten_outputs(wanted)) != len(flatten_outputs(got)):
            return 'it returns another number of features'
        gap = largest_gap(wanted, got)
        if gap == float('inf'):
            return 'its features have other shapes'
        return '' if gap <= tolerance else f'features differ by {gap:.1e}'


def _try_run(network: nn.Module, images: Tensor) -> tuple[Any, str]:
    """A network's outputs, and its error message if it fails."""
    try:
        return network(images), ''
    except Exception as error:  # depends on its code
        message = ' '.join(str(error).split())[:80]
        return None, message or type(error).__name__


def _remaining(
    network: nn.Module, path: str, side: int, gone: set[int]
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
def _without_readers(
    network: nn.Module, channel_map: ChannelMap
) -> Iterator[None]:
    """Run the whole network so that no layer reads the removed channels."""
    readers = {}
    with ExitStack() as stack:
        for path, kept in channel_map.layers.items():
            layer = network.get_submodule(path)
            if not isinstance(layer, SLICED_LAYERS):
                hook = partial(
                    _norm_kept_channels, kept, _shrunk_copy(layer, kept)
                )
                stack.callback(layer.register_forward_hook(hook).remove)
            elif not is_depthwise(layer):
                # depthwise convs pass them on; their readers are masked
                readers[path] = _flags(kept.inputs, kept.widths[1])
        with CloseChannels(network, readers):
            yield


def _shrunk_copy(layer: nn.Module, kept: LayerSlice) -> nn.Module:
    small = copy_network(layer)
    shrink_layer(small, kept)
    return small


def _flags(channels: Sequence[int], width: int) -> Tensor:
    return torch.isin(torch.arange(width), torch.tensor(channels))


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
