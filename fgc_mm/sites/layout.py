"""Dense layers, and where channels lie in what they read and write."""

import math

import torch
from torch import Tensor, nn

from fgc_mm.functional import mask_channels

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


def layer_widths(layer: nn.Module) -> tuple[int, int, int]:
    """Channels in, channels out, and groups of a conv or linear layer."""
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features, 1
    return layer.in_channels, layer.out_channels, layer.groups


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


def spread(mask: Tensor, positions: Tensor | None) -> Tensor:
    """A site's mask over all channels of a consumer's input.

    Args:
        mask: (N, C).
        positions: (C_in,) the site's channel at each place, -1 for
            another's; ``None`` if they are the site's in order.

    Returns:
        (N, C_in); 1 where the site has no say.
    """
    if positions is None:
        return mask
    # one more column, of ones: the place that -1 points at
    padded = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
    return padded[:, positions]


def mask_input(
    layer: nn.Module,
    x: Tensor,
    mask: Tensor,
    positions: Tensor | None,
    inplace: bool = False,
) -> Tensor:
    """A layer's input with a site's channels masked.

    Args:
        layer: The consumer.
        x: (N, C_in, ...), or (N, ..., C_in) for a linear layer.
        mask: (N, C).
        positions: As in :func:`spread`.
        inplace: As in :func:`fgc_mm.functional.mask_channels`.
    """
    second, wide = channels_second(layer, x), spread(mask, positions)
    masked = mask_channels(second, wide, inplace)
    return masked.movedim(1, -1) if channels_last(layer) else masked


def site_channels(
    layer: nn.Module, x: Tensor, positions: Tensor | None
) -> Tensor:
    """A site's own channels in a consumer's input; (N, C, ...).

    Where the input is a flattened map, a channel's places become one
    dimension behind it.
    """
    x = channels_second(layer, x)
    if positions is None:
        return x
    places = (positions >= 0).nonzero().squeeze(1)
    order = places[positions[places].argsort(stable=True)]
    channels = int(positions.max()) + 1
    chosen = x.index_select(1, order)
    return (
        chosen
        if len(order) == channels
        else chosen.unflatten(1, (channels, -1))
    )
