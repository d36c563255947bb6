"""Dense layers, and where channels lie in what they read and write."""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from fgc_mm.functional import mask_channels, spread_mask
from fgc_mm.functional.pooling import global_average_pool

DENSE = (nn.Conv1d, nn.Conv2d, nn.Linear)


def is_depthwise(layer: nn.Module) -> bool:
    """Whether a conv keeps every channel apart."""
    groups = getattr(layer, 'groups', 1)
    return (
        isinstance(layer, DENSE)
        and groups > 1
        and groups == layer.in_channels == layer.out_channels
    )


def is_dense(layer: nn.Module) -> bool:
    """Whether it is a conv or linear layer that mixes channels."""
    return isinstance(layer, DENSE) and not is_depthwise(layer)


def lone_depthwise(
    network: nn.Module, producer: str, consumers: Iterable[str]
) -> str | None:
    """A site's depthwise conv that decides, or reads, apart from others.

    Its channels can be masked, but not left out: one that is closed in front
    of the conv is a constant behind it.

    Args:
        network: Has the layers.
        producer: Path of the site's producer.
        consumers: Paths of its consumers.
    """
    for path in (producer, *consumers):
        if is_depthwise(network.get_submodule(path)):
            return path
    return None


def layer_widths(layer: nn.Module) -> tuple[int, int, int]:
    """Channels in, channels out, and groups of a conv or linear layer."""
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features, 1
    return layer.in_channels, layer.out_channels, layer.groups


def input_weights(layer: nn.Module, channel: int) -> Tensor:
    """A view of the weights that multiply one input channel of a layer.

    Args:
        layer: A conv (grouped, too) or linear layer.
        channel: Number of the input channel.

    Returns:
        (outputs of the channel's group, *kernel).
    """
    _, _, groups = layer_widths(layer)
    # (groups, outputs of one, inputs of one, *kernel)
    weight = layer.weight.unflatten(0, (groups, -1))
    group, place = divmod(channel, weight.shape[2])
    return weight[group, :, place]


def pair_macs(layer: nn.Module, output_shape: torch.Size) -> int:
    """MACs of one image for one pair of channels of a layer.

    Args:
        layer: A conv or linear layer.
        output_shape: Of what it gives for one image.
    """
    if isinstance(layer, nn.Linear):  # kernel elements x positions
        return math.prod(output_shape[:-1])
    kernel = math.prod(layer.kernel_size)
    return kernel * math.prod(output_shape) // layer.out_channels


def channels_last(layer: nn.Module) -> bool:
    """Whether the layer's channels are the last dimension, not the second."""
    return isinstance(layer, nn.Linear)


def channels_second(layer: nn.Module, x: Tensor) -> Tensor:
    """What a layer reads or writes, as (N, C, ...); a view."""
    return x.movedim(-1, 1) if channels_last(layer) else x


class Places:
    """Where a site's channels lie in a layer's input, worked out once.

    Args:
        positions: As in :func:`fgc_mm.functional.spread_mask`.
    """

    def __init__(self, positions: Sequence[int]) -> None:
        where = torch.tensor(positions)
        places = (where >= 0).nonzero().squeeze(1)
        order = places[where[places].argsort(stable=True)]
        present, counts = where[order].unique(return_counts=True)
        if counts.unique().numel() > 1:  # some channels more often than others
            order = order[counts.cumsum(0) - counts]
        self._tensors = where, order, present

    def on(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """On a device, to which they are moved once.

        Args:
            device: Of the layer's input.

        Returns:
            The positions; the places of the site's channels in the order of
            their numbers; and these numbers.
        """
        tensors = self._tensors
        if tensors[0].device != device:
            tensors = tuple(x.to(device) for x in tensors)
            self._tensors = tensors
        return tensors


def mask_input(
    layer: nn.Module,
    x: Tensor,
    mask: Tensor,
    places: Places | None,
    inplace: bool = False,
) -> Tensor:
    """A layer's input with a site's channels masked.

    Args:
        layer: The consumer.
        x: (N, C_in, ...), or (N, ..., C_in) for a linear layer.
        mask: (N, C).
        places: Where the channels lie; ``None`` if they are all, in order.
        inplace: As in :func:`fgc_mm.functional.mask_channels`.
    """
    if places is not None:
        mask = spread_mask(mask, places.on(mask.device)[0])
    if not channels_last(layer):
        return mask_channels(x, mask, inplace)
    masked = mask_channels(x.movedim(-1, 1), mask, inplace)
    return masked.movedim(1, -1)


def site_channels(
    layer: nn.Module, x: Tensor, places: Places | None, channels: int
) -> tuple[Tensor, Tensor]:
    """The channels of a site that a consumer reads, in their order.

    Where the input is a flattened map, a channel's places become one
    dimension behind it.

    Args:
        layer: The consumer.
        x: Its input.
        places: As in :func:`mask_input`.
        channels: Of the site (C).

    Returns:
        Their numbers, (c,), and their maps, (N, c, ...).
    """
    x = channels_second(layer, x)
    if places is None:
        return torch.arange(channels), x
    _, order, present = places.on(x.device)
    maps = x.index_select(1, order)
    if len(order) != len(present):
        maps = maps.unflatten(1, (len(present), -1))
    return present, maps


def assemble(parts: Sequence[tuple[Tensor, Tensor]], channels: int) -> Tensor:
    """A site's channels from several consumers that read some of them.

    Args:
        parts: As :func:`site_channels` gives them.
        channels: Of the site (C).

    Returns:
        (N, C, ...) if one consumer reads all, else the means over all
        positions, (N, C); a channel that several read is the first's.
    """
    for present, maps in parts:
        if len(present) == channels:
            return maps
    first = parts[0][1]
    means = first.new_zeros(first.shape[0], channels)
    for present, maps in reversed(parts):
        means[:, present.to(means.device)] = global_average_pool(maps)
    return means
