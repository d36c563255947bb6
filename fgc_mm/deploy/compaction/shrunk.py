"""A network that is narrower for a while."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from torch import nn

from fgc_mm.models import ChannelMap
from fgc_mm.models.kept import shrink_layer


@contextmanager
def shrunk(network: nn.Module, channel_map: ChannelMap) -> Iterator[None]:
    """Within it a network has what a channel map leaves; then all again.

    For trials: a deep copy of a network takes longer than a pass through it.

    Args:
        network: The whole one; no tensor of it is changed.
        channel_map: Made for it.

    Raises:
        FGCError: The groups of a norm would be of several widths.
    """
    with ExitStack() as stack:
        for path, kept in channel_map.layers.items():
            layer = network.get_submodule(path)
            stack.enter_context(_restored(layer))
            shrink_layer(layer, kept)
        yield


@contextmanager
def _restored(layer: nn.Module) -> Iterator[None]:
    """Gives a layer its attributes back, parameters and buffers too."""
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
