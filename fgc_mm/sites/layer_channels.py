"""Conv and linear layers, and where channels are in inputs and outputs."""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from fgc_mm.functional import mask_channels, spread_mask
from fgc_mm.functional.mask_targets import channel_scores
from fgc_mm.functional.pooling import global_average_pool

CONV_OR_LINEAR = (nn.Conv1d, nn.Conv2d, nn.Linear)


def is_depthwise(layer: nn.Module) -> bool:
    """Whether a conv processes every channel separately."""
    groups = getattr(layer, 'groups', 1)
    return (
        isinstance(layer, CONV_OR_LINEAR)
        and groups > 1
        and groups == layer.in_channels == layer.out_channels
    )


def mixes_channels(layer: nn.Module) -> bool:
    """Whether it is a conv or linear layer, but not a depthwise conv."""
    return isinstance(layer, CONV_OR_LINEAR) and not is_depthwise(layer)


def find_separate_depthwise(
    network: nn.Module, producer: str, consumers: Iterable[str]
) -> str | None:
    """Path of a depthwise conv that is a site's producer or consumer.

    The channels of such a site can be masked but not skipped: a channel that
    is closed before the conv is a constant after it.
    """
    for path in (producer, *consumers):
        if is_depthwise(network.get_submodule(path)):
            return path
    return None


def layer_widths(layer: nn.Module) -> tuple[int, int, int]:
    """Channels in, channels out, and groups of a conv or linear layer."""
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features, 1
    assert isinstance(layer, _ConvNd)
    return layer.in_channels, layer.out_channels, layer.groups


def input_weights(layer: nn.Module, channel: int) -> Tensor:
    """A view of the weights that multiply one input channel of a layer.

    Its shape is (outputs of the channel's group, *kernel).
    """
    _, _, groups = layer_widths(layer)
    # (groups, outputs of one, inputs of one, *kernel)
    assert isinstance(layer.weight, Tensor)
    weight = layer.weight.unflatten(0, (groups, -1))
    group, index = divmod(channel, weight.shape[2])
    return weight[group, :, index]


def macs_per_channel_pair(layer: nn.Module, output_shape: torch.Size) -> int:
    """MACs of one pair of channels, for an output of this shape."""
    if isinstance(layer, nn.Linear):  # kernel elements x positions
        return math.prod(output_shape[:-1])
    channels = layer_widths(layer)[1]
    return kernel_elements(layer) * math.prod(output_shape) // channels


def kernel_elements(layer: nn.Module) -> int:
    """Elements of a conv's kernel for one pair of channels."""
    assert isinstance(layer, _ConvNd)
    return math.prod(layer.kernel_size)


def channels_last(layer: nn.Module) -> bool:
    """Whether channels are the last dimension, as in a linear layer."""
    return isinstance(layer, nn.Linear)


def channels_second(layer: nn.Module, x: Tensor) -> Tensor:
    """The input or output of a layer as (N, C, ...); a view."""
    return x.movedim(-1, 1) if channels_last(layer) else x


class ChannelIndex:
    """Index of a site's channels in a layer's input, computed once.

    Args:
        positions: As in :func:`fgc_mm.functional.spread_mask`.
    """

    def __init__(self, positions: Sequence[int]) -> None:
        where = torch.tensor(positions)
        index = (where >= 0).nonzero().squeeze(1)
        order = index[where[index].argsort(stable=True)]
        present, counts = where[order].unique(return_counts=True)
        if counts.unique().numel() > 1:  # some channels occur more often
            order = order[counts.cumsum(0) - counts]
        self._tensors = where, order, present

    def on(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """The index tensors on a device, moved once.

        They are the positions; the input channels that hold the site's
        channels, ordered by site channel; and these site channels.
        """
        where, order, present = self._tensors
        if where.device != device:
            # kept for training, even if they are first used in inference
            with torch.inference_mode(False):
                moved = where.to(device), order.to(device), present.to(device)
            self._tensors = moved
        return self._tensors


def mask_input(
    layer: nn.Module,
    x: Tensor,
    mask: Tensor,
    index: ChannelIndex | None,
    inplace: bool = False,
) -> Tensor:
    """A layer's input with a site's channels masked.

    Args:
        layer: The consumer.
        x: (N, C_in, ...), or (N, ..., C_in) for a linear layer.
        mask: (N, C).
        index: Index of the site's channels; ``None``: all, in order.
        inplace: As in :func:`fgc_mm.functional.mask_channels`.
    """
    if index is not None:
        mask = spread_mask(mask, index.on(mask.device)[0])
    masked = mask_channels(channels_second(layer, x), mask, inplace)
    return masked.movedim(1, -1) if channels_last(layer) else masked


def site_channels(
    layer: nn.Module, x: Tensor, index: ChannelIndex | None, channels: int
) -> tuple[Tensor, Tensor]:
    """The channels of a site that a consumer reads from ``x``, in order.

    If the input is a flattened map, the positions of a channel become one
    dimension after it.

    Returns:
        Their indices, (c,), and their maps, (N, c, ...).
    """
    x = channels_second(layer, x)
    if index is None:
        return torch.arange(channels), x
    _, order, present = index.on(x.device)
    maps = x.index_select(1, order)
    if len(order) != len(present):
        maps = maps.unflatten(1, (len(present), -1))
    return present, maps


def merge_channels(
    parts: Sequence[tuple[Tensor, Tensor]], channels: int
) -> Tensor:
    """A site's channels from several consumers that each read some of them.

    Args:
        parts: As returned by :func:`site_channels`.
        channels: Number of channels of the site (C).

    Returns:
        (N, C, ...) if one consumer reads all, otherwise the means over all
        positions, (N, C); the first consumer takes precedence.
    """
    for present, maps in parts:
        if len(present) == channels:
            return maps
    first = parts[0][1]
    means = first.new_zeros(first.shape[0], channels)
    for present, maps in reversed(parts):
        means[:, present.to(means.device)] = global_average_pool(maps)
    return means


def are_maps(values: Tensor) -> bool:
    """Whether channels have several positions, (N, C, ...), not a mean."""
    return values.shape[2:].numel() > 1


def merge_peaks(
    parts: Sequence[tuple[Tensor, Tensor]], channels: int
) -> Tensor:
    """The largest magnitude of a site's channels, from several consumers.

    A consumer that reads maps takes precedence over one that reads their
    means (the first layer of a squeeze-excite), then the first consumer.

    Args:
        parts: As returned by :func:`site_channels`.
        channels: Number of channels of the site (C).

    Returns:
        (N, C) float32, without gradient.
    """
    first = parts[0][1]
    peaks = first.new_zeros(first.shape[0], channels, dtype=torch.float32)
    ordered = sorted(parts, key=lambda part: not are_maps(part[1]))
    for present, values in reversed(ordered):
        scores = channel_scores(values).float()
        peaks[:, present.to(peaks.device)] = scores
    return peaks
