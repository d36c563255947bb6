"""Channels that can leave a plain network together, by torch-pruning."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn

from fgc_mm.deploy.compaction.agreement import flat, largest_gap
from fgc_mm.errors import FGCError
from fgc_mm.models import ChannelMap
from fgc_mm.sites.layout import DENSE, layer_widths

CLOSE = 1e-4  # largest difference of a feature, as a share of the largest one
Channels = dict[str, set[int]]


@dataclass(frozen=True)
class Member:
    """A layer's side in a group.

    Attributes:
        path: Of the layer.
        output: Whether its outputs belong to the group, or its inputs.
        places: For each of the group's channels, in order, that of the
            layer.
    """

    path: str
    output: bool
    places: tuple[int, ...]


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that several layers have in common.

    Attributes:
        channels: How many.
        members: The layers.
        group: torch-pruning's, for its importances.
    """

    channels: int
    members: tuple[Member, ...]
    group: Any


@dataclass(frozen=True)
class Removed:
    """Channels to leave out, by path of the layer."""

    outputs: Channels
    inputs: Channels

    @classmethod
    def of(cls, leaving: Iterable[tuple[ChannelGroup, Iterable[int]]]) -> Any:
        """From the channels of each group."""
        sides: tuple[Channels, Channels] = defaultdict(set), defaultdict(set)
        for group, channels in leaving:
            channels = list(channels)
            for member in group.members:
                places = {member.places[c] for c in channels}
                sides[not member.output][member.path] |= places
        return cls(*map(dict, sides))

    def channel_map(self, network: nn.Module) -> ChannelMap:
        """What remains of a network."""
        return ChannelMap.of(
            network,
            {p: _rest(network, p, 0, c) for p, c in self.outputs.items()},
            {p: _rest(network, p, 1, c) for p, c in self.inputs.items()},
        )

    @torch.no_grad()
    def difference(self, network: nn.Module, images: Tensor) -> float:
        """How far the shrunk network is from the whole one without them.

        In the whole one nobody reads the channels: the weights of their
        inputs are 0. As a share of the largest feature; inf if the code of
        the network does not bear it.
        """
        silent = copy.deepcopy(network)
        for path, channels in self.inputs.items():
            _silence(silent.get_submodule(path), sorted(channels))
        wanted = silent(images)
        small = copy.deepcopy(network)
        try:
            got = self.channel_map(network).shrink(small)(images)
        except Exception:  # whatever the network's code relies on
            return float('inf')
        if len(flat(wanted)) != len(flat(got)):
            return float('inf')
        return largest_gap(wanted, got)


def find_groups(network: nn.Module, images: Tensor) -> list[ChannelGroup]:
    """All groups of channels that can really be removed.

    torch-pruning's dependency graph proposes them; each is then tried: the
    network without one of its channels must give the features of the whole
    network in which nobody reads that channel. So a shortcut that slices and
    pads (``CifarResNet``) keeps its channels, as do the network's outputs.

    Args:
        network: A plain backbone, in evaluation.
        images: (N, 3, H, W) to try on.

    Raises:
        FGCError: There is none.
    """
    graph = _trace(network, images)
    names = {id(m): name for name, m in network.named_modules()}
    found = []
    for group in graph.get_all_groups(root_module_types=[nn.Conv2d]):
        candidate = _read(graph, group, names)
        removed = Removed.of([(candidate, [0])])
        if candidate.channels < 2 or not removed.inputs:
            continue
        if removed.difference(network, images) <= CLOSE:
            found.append(candidate)
    if not found:
        raise FGCError(
            f'{type(network).__name__} has no channels that can be removed: '
            'in every group that torch-pruning proposes, the network fails '
            'without one; give another backbone.'
        )
    return found


def _trace(network: nn.Module, images: Tensor) -> tp.DependencyGraph:
    graph = tp.DependencyGraph()
    try:
        with torch.enable_grad():
            return graph.build_dependency(
                network, images[:1].clone(), output_transform=flat
            )
    except Exception as error:  # whatever it does not know
        said = ' '.join(str(error).split())[:80]
        raise FGCError(
            f'torch-pruning cannot trace {type(network).__name__} ({said}), '
            'so it cannot be pruned statically; give another backbone.'
        ) from error


def _read(graph: Any, group: Any, names: Mapping[int, str]) -> ChannelGroup:
    members = []
    for item in group:
        path = names.get(id(item.dep.layer))
        if path is None:  # an operation, not a layer
            continue
        places = dict(zip(map(int, item.root_idxs), map(int, item.idxs)))
        output = graph.is_out_channel_pruning_fn(item.dep.handler)
        members.append(
            Member(path, output, tuple(places[c] for c in sorted(places)))
        )
    return ChannelGroup(len(group[0].idxs), tuple(members), group)


def _rest(
    network: nn.Module, path: str, side: int, removed: set[int]
) -> list[int]:
    layer = network.get_submodule(path)
    if isinstance(layer, DENSE):
        reads, out, _ = layer_widths(layer)
        width = reads if side else out
    else:
        width = max(max(p.shape) for p in layer.parameters())
    return [channel for channel in range(width) if channel not in removed]


def _silence(layer: nn.Module, channels: list[int]) -> None:
    """Has a layer no longer read these of its inputs."""
    if layer_widths(layer)[2] > 1:
        # those of depthwise convs are outputs, too: whoever reads these does
        # not look; anything between fails the trial
        return
    layer.weight[:, channels] = 0
