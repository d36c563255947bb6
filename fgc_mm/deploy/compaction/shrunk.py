"""Temporarily shrunk networks."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from torch import nn

from fgc_mm.models import ChannelMap
from fgc_mm.models.layer_slice import shrink_layer


@contextmanager
def shrunk(network: nn.Module, channel_map: ChannelMap) -> Iterator[None]:
    """Shrink a network to a channel map within a ``with`` block.

    For checks: a deep copy of a network takes longer than a forward pass.

    Args:
        network: The whole one; its tensors are not changed.
        channel_map: Made for it.

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
    attributes = dict(vars(layer))
    own = {
        name: dict(vars(layer)[name]) for name in ('_parameters', '_buffers')
    }
    try:
        yield
    finally:
        vars(layer).clear()
        vars(layer).update(attributes)
        for name, tensors in own.items():
            vars(layer)[name].clear()
            vars(layer)[name].update(tensors)
