"""Groups of channels that can be pruned together, by torch-pruning."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn

from fgc_mm.deploy.compaction.removed_channels import (
    RemovedChannels,
    short_message,
)
from fgc_mm.errors import FGCError
from fgc_mm.models.gated_backbone import check_dtypes
from fgc_mm.models.layer_slice import SLICED_LAYERS, channel_count
from fgc_mm.sites.call import tensors
from fgc_mm.sites.layer_channels import is_depthwise, layer_widths

MOST_VISITED = 5 * 10**7  # channels in one search: about a minute


@dataclass(frozen=True)
class GroupLayer:
    """A layer that reads or writes the channels of a group.

    Attributes:
        path: Path of the layer.
        output: Whether its outputs belong to the group, or its inputs.
        indices: For each of the group's channels, the layer's channels;
            several where a linear layer reads a flattened map.
    """

    path: str
    output: bool
    indices: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that several layers have in common.

    Attributes:
        channels: Their number.
        members: The layers.
        blocks: The channels, in blocks that must lose equally many: the
            groups of a conv or of a group norm; one block otherwise.
        group: torch-pruning's group, for its importances.
        least: Minimum number of channels of a block; two if a group norm has
            no statistics for a single channel (a map of one pixel).
    """

    channels: int
    members: tuple[GroupLayer, ...]
    blocks: tuple[tuple[int, ...], ...]
    group: Any
    least: int = 1

    @property
    def can_shrink(self) -> bool:
        """Whether all blocks are equal, and wide enough to lose a channel."""
        widths = {len(block) for block in self.blocks}
        return len(widths) == 1 and min(widths) > self.least

    def without(self, count: int) -> RemovedChannels:
        """Remove the first channels of each block."""
        gone = [channel for block in self.blocks for channel in block[:count]]
        return channels_to_remove([(self, gone)])


def channels_to_remove(
    leaving: Iterable[tuple[ChannelGroup, Iterable[int]]],
) -> RemovedChannels:
    """The channels that layers lose with these channels of each group."""
    outputs: defaultdict[str, set[int]] = defaultdict(set)
    inputs: defaultdict[str, set[int]] = defaultdict(set)
    for group, channels in leaving:
        channels = list(channels)
        for member in group.members:
            indices = {p for c in channels for p in member.indices[c]}
            side = outputs if member.output else inputs
            side[member.path] |= indices
    return RemovedChannels(outputs, inputs)


def find_groups(network: nn.Module, images: Tensor) -> list[ChannelGroup]:
    """All groups of channels that can be removed.

    torch-pruning's dependency graph proposes groups, and each is checked: the
    network without one channel of each block must have the features of the
    whole network in which no layer reads those channels. So the channels of a
    shortcut that slices and pads (``CifarResNet``), and of the network's
    outputs, are not among them.

    Args:
        network: A plain backbone, in evaluation.
        images: (N, 3, H, W) for the checks.

    Raises:
        FGCError: There is none; or images of another dtype, or none.
    """
    _check_images(images)
    graph = _dependency_graph(network, images)
    limit = _SearchLimit.of(graph, type(network).__name__)
    names = {id(m): name for name, m in network.named_modules()}
    found, problems = [], []
    for group in graph.get_all_groups(root_module_types=[nn.Conv2d]):
        limit.visited = 0
        candidate = _channel_group(network, graph, group, names)
        candidate = _with_minimum(candidate, network, images)
        first = candidate.without(1)
        if not candidate.can_shrink or not first.inputs:
            continue
        problem = first.problem(network, images)
        if problem:
            problems.append(f'{candidate.members[0].path}: {problem}')
        else:
            found.append(candidate)
    if not found:
        raise FGCError(
            f'{type(network).__name__} has no channels that can be removed: '
            f'{_reason(problems)}; give another backbone.'
        )
    return found


def _reason(problems: Sequence[str]) -> str:
    """Why no group can lose channels."""
    if problems:
        return (
            'in every group that torch-pruning proposes, the network fails '
            f'without one ({problems[0]})'
        )
    return (
        'torch-pruning proposes no group of several channels that a conv or '
        'linear layer of it reads, equally many per group of the layer'
    )


def _check_images(images: Tensor) -> None:
    if not len(images):
        raise FGCError(
            f'the images have the shape {tuple(images.shape)}, but a network '
            'is checked on at least one; give some test images.'
        )


def _with_minimum(
    group: ChannelGroup, network: nn.Module, images: Tensor
) -> ChannelGroup:
    """The group, with ``least`` set to two if one channel is too few."""
    layers = [network.get_submodule(member.path) for member in group.members]
    norms = any(isinstance(layer, nn.GroupNorm) for layer in layers)
    if not norms or not group.can_shrink:
        return group
    most = group.without(len(group.blocks[0]) - 1)
    fails = most.problem(network, images[:1])
    return replace(group, least=2) if fails else group


def _dependency_graph(
    network: nn.Module, images: Tensor
) -> tp.DependencyGraph:
    graph = tp.DependencyGraph()
    try:
        with torch.enable_grad():
            return graph.build_dependency(
                network,
                (images[:1].clone(),),  # of a tensor it traces [0], (3, H, W)
                output_transform=tensors,
            )
    except Exception as error:  # depends on the network's operations
        check_dtypes(network, images, error)
        raise FGCError(
            f'torch-pruning cannot trace {type(network).__name__} '
            f'({short_message(error)}), so it cannot be pruned statically; '
            'give another backbone.'
        ) from error


class _SearchLimit:
    """Ends a search of torch-pruning's that would not end.

    It passes lists of channels along the dependencies until no list is new.
    Where channels are shuffled, shifted and summed again, there is always a
    new one. As a last mapping of each dependency this object sees all lists.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.visited = 0

    @classmethod
    def of(cls, graph: tp.DependencyGraph, name: str) -> _SearchLimit:
        limit = cls(name)
        for node in graph.module2node.values():
            for dependency in node.dependencies:
                dependency.index_mapping.append(limit)
        return limit

    def __call__(self, channels: Sequence[Any]) -> Sequence[Any]:
        self.visited += len(channels)
        if self.visited > MOST_VISITED:
            raise FGCError(
                f"{self.name} mixes its channels so that torch-pruning's "
                'search for channels that depend on each other does not end, '
                'or takes minutes; give another backbone.'
            )
        return channels


def _channel_group(
    network: nn.Module, graph: Any, group: Any, names: Mapping[int, str]
) -> ChannelGroup:
    members = []
    for item in group:
        path = names.get(id(item.dep.layer))
        sliced = isinstance(item.dep.layer, SLICED_LAYERS)
        if path is None or not (sliced or channel_count(item.dep.layer)):
            continue  # an operation, or one parameter for all channels
        indices = defaultdict(list)
        for root, index in zip(item.root_idxs, item.idxs):
            indices[int(root)].append(int(index))
        output = graph.is_out_channel_pruning_fn(item.dep.handler)
        ordered = tuple(tuple(indices[c]) for c in sorted(indices))
        members.append(GroupLayer(path, output, ordered))
    channels = len(group[0].idxs)
    blocks = _blocks(network, channels, members)
    return ChannelGroup(channels, tuple(members), blocks, group)


def _blocks(
    network: nn.Module, channels: int, members: Iterable[GroupLayer]
) -> tuple[tuple[int, ...], ...]:
    """Channels grouped by the conv or norm groups that contain them."""
    keys: list[tuple[int, ...]] = [()] * channels
    for member in members:
        wide = _group_width(network.get_submodule(member.path), member.output)
        if wide:
            keys = [
                (*key, *(index // wide for index in indices))
                for key, indices in zip(keys, member.indices)
            ]
    blocks = defaultdict(list)
    for channel, key in enumerate(keys):
        blocks[key].append(channel)
    return tuple(map(tuple, blocks.values()))


def _group_width(layer: nn.Module, output: bool) -> int:
    """Channels per group of a layer; 0 if there are no groups to keep."""
    if isinstance(layer, nn.GroupNorm):
        width, groups = layer.num_channels, layer.num_groups
    elif isinstance(layer, SLICED_LAYERS) and not is_depthwise(layer):
        reads, writes, groups = layer_widths(layer)
        width = writes if output else reads
    else:
        return 0
    return width // groups if 1 < groups < width else 0
