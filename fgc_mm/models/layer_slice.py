"""The remaining channels of one layer, and shrinking the layer to them."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from fgc_mm.errors import FGCError
from fgc_mm.sites.layer_channels import CONV_OR_LINEAR, layer_widths

# layers that are sliced in their outputs and inputs
SLICED_LAYERS = (*CONV_OR_LINEAR, nn.Conv3d)
# attributes in which per-channel modules store their number of channels
WIDTH_NAMES = ('num_features', 'num_channels', 'num_parameters', 'dim')
# the same, by class, for torch's norms and PReLU
WIDTH_ATTRIBUTES = {
    nn.modules.batchnorm._NormBase: 'num_features',
    nn.GroupNorm: 'num_channels',
    nn.LayerNorm: 'normalized_shape',
    nn.PReLU: 'num_parameters',
}


@dataclass(frozen=True)
class LayerSlice:
    """The channels of one layer that remain.

    Attributes:
        widths: Widths of the whole layer: (outputs, inputs, groups) of a conv
            or linear layer, (channels,) of a per-channel module (a norm, a
            ``PReLU``, a layer scale).
        outputs: Remaining output channels, as indices in the whole layer.
        inputs: Remaining input channels; for a per-channel module they are
            its outputs.
    """

    widths: tuple[int, ...]
    outputs: tuple[int, ...]
    inputs: tuple[int, ...] = ()

    @property
    def dense(self) -> bool:
        """Whether it is a conv or linear layer."""
        return len(self.widths) == 3

    def groups(self) -> tuple[list[list[int]], list[list[int]]]:
        """For each remaining group: outputs, and inputs within the group."""
        out, reads, groups = self.widths
        wide, deep = out // groups, reads // groups
        outputs: list[list[int]] = [[] for _ in range(groups)]
        inputs: list[list[int]] = [[] for _ in range(groups)]
        for channel in self.outputs:
            outputs[channel // wide].append(channel)
        for channel in self.inputs:
            inputs[channel // deep].append(channel % deep)
        used = [g for g in range(groups) if outputs[g] or inputs[g]]
        return [outputs[g] for g in used], [inputs[g] for g in used]

    def has_equal_groups(self) -> bool:
        """Whether all remaining groups have the same widths, above 0."""
        return all(
            len({len(group) for group in side}) == 1 and side[0]
            for side in self.groups()
        )

    def slice_tensor(self, value: Tensor) -> Tensor:
        """Slice one of the layer's parameters or buffers.

        For a conv or linear layer, tensors with the weight's first two sizes
        are sliced in both (also pruning masks), tensors with one entry per
        output in the first (a bias, a gain); others are not changed.
        """
        if self.dense:
            return self._slice_dense(value)
        dims = [d for d, n in enumerate(value.shape) if n == self.widths[0]]
        if not dims:
            return value
        index = torch.tensor(self.outputs, device=value.device)
        return value.index_select(dims[0], index)

    def _slice_dense(self, value: Tensor) -> Tensor:
        if self._is_weight(value):
            outputs, inputs = self.groups()
            parts = [value[out][:, i] for out, i in zip(outputs, inputs)]
            return torch.cat(parts)
        if value.dim() and value.shape[0] == self.widths[0]:
            return value[list(self.outputs)]
        return value

    def _is_weight(self, value: Tensor) -> bool:
        out, reads, groups = self.widths
        return tuple(value.shape[:2]) == (out, reads // groups)

    def is_whole(self, value: Tensor) -> bool:
        """Whether a tensor is the whole layer's, not a sliced one."""
        if self.dense:
            return self._is_weight(value)
        return self.widths[0] in value.shape


def map_widths(network: nn.Module, path: str) -> tuple[int, ...]:
    """Outputs, inputs and groups of a layer; (channels,) of other modules.

    Raises:
        FGCError: No such module, one without channels, or a transposed conv.
    """
    try:
        layer = network.get_submodule(path)
    except AttributeError:
        raise FGCError(
            f'the channel map has {path}, which {type(network).__name__} '
            'does not have, but a map only fits the network that it was made '
            'for; give the config of that one.'
        ) from None
    if isinstance(layer, SLICED_LAYERS):
        reads, out, groups = layer_widths(layer)
        return out, reads, groups
    channels = channel_count(layer)
    if isinstance(layer, _ConvTransposeNd):
        raise FGCError(
            f'{path} is a {type(layer).__name__}, which a channel map cannot '
            'shrink; remove it from the map.'
        )
    if not channels:
        raise FGCError(
            f'{path} ({type(layer).__name__}) has no channels of its own, so '
            'a channel map cannot shrink it; remove it from the map.'
        )
    return (channels,)


def channel_count(layer: nn.Module) -> int:
    """Channels of a per-channel module; 0 if it has none.

    Norms store the number in an attribute; for other modules (a layer scale)
    it is the size of their largest parameter or buffer. A single value for
    all channels (``nn.PReLU()``) does not count.
    """
    for kind, name in WIDTH_ATTRIBUTES.items():
        if isinstance(layer, kind):
            size = getattr(layer, name)
            size = size if isinstance(size, int) else size[0]
            break
    else:
        sizes = [max(v.shape) for v in _own(layer).values() if v.dim()]
        size = max(sizes, default=0)
    return size if size > 1 else 0


def _own(layer: nn.Module) -> dict[str, Tensor]:
    """A module's own parameters and buffers, by name."""
    return {
        **dict(layer.named_parameters(recurse=False)),
        **dict(layer.named_buffers(recurse=False)),
    }


def check_layer_slice(path: str, layer_slice: LayerSlice) -> None:
    """Refuse channels that do not exist, and groups of different widths.

    Raises:
        FGCError: Names the layer.
    """
    limits = (
        layer_slice.widths if layer_slice.dense else (layer_slice.widths[0], 0)
    )
    for channels, limit in zip(
        (layer_slice.outputs, layer_slice.inputs), limits
    ):
        rising = sorted(set(channels)) == list(channels)
        if not rising or (channels and not 0 <= channels[-1] < limit):
            raise FGCError(
                f'the channels of {path} in the channel map are not '
                f'increasing indices below {limit}; make the map again.'
            )
    if not layer_slice.outputs or (
        layer_slice.dense and not layer_slice.has_equal_groups()
    ):
        raise FGCError(
            f'the channel map leaves {path} without a channel, or with '
            'groups of different widths; keep equally many in each group, '
            'and at least one.'
        )


def shrink_layer(layer: Any, layer_slice: LayerSlice) -> None:
    """Shrink a layer to the remaining channels, in place."""
    for name, value in _own(layer).items():
        shrunk = layer_slice.slice_tensor(value.detach()).clone()
        if isinstance(value, nn.Parameter):
            shrunk = nn.Parameter(shrunk, value.requires_grad)
        setattr(layer, name, shrunk)
    count = len(layer_slice.outputs)
    if not layer_slice.dense:
        _set_channels(layer, layer_slice)
    elif isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = count, len(layer_slice.inputs)
    else:
        layer.out_channels, layer.in_channels = count, len(layer_slice.inputs)
        layer.groups = len(layer_slice.groups()[0])


def _set_channels(layer: Any, layer_slice: LayerSlice) -> None:
    """Update the attributes that store a per-channel module's width."""
    count = len(layer_slice.outputs)
    for name in WIDTH_NAMES:
        if getattr(layer, name, None) == layer_slice.widths[0]:
            setattr(layer, name, count)
    shape = getattr(layer, 'normalized_shape', ())
    if shape[:1] == layer_slice.widths:
        layer.normalized_shape = (count, *shape[1:])
    if isinstance(layer, nn.GroupNorm):
        layer.num_groups = _norm_groups(layer, layer_slice)


def _norm_groups(layer: nn.GroupNorm, layer_slice: LayerSlice) -> int:
    """Number of remaining groups of a group norm; all equally wide."""
    wide = layer_slice.widths[0] // layer.num_groups
    remaining = Counter(channel // wide for channel in layer_slice.outputs)
    if len(set(remaining.values())) > 1:
        raise FGCError(
            'the channel map leaves a GroupNorm with groups of '
            f'{min(remaining.values())} to {max(remaining.values())} '
            'channels; keep equally many in each.'
        )
    return len(remaining)


def describe_widths(widths: tuple[int, ...]) -> str:
    """Widths in words."""
    if len(widths) == 1:
        return f'{widths[0]} channels wide'
    return f'{widths[1]} -> {widths[0]} channels in {widths[2]} groups'
