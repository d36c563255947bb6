"""Removing channels whose weights training has set to zero."""

from __future__ import annotations

import torch
from mmpretrain.models.classifiers import ImageClassifier
from torch import Tensor, nn

from fgc_mm.deploy.compaction.static_groups import (
    ChannelGroup,
    GroupLayer,
    channels_to_remove,
    find_groups,
)
from fgc_mm.deploy.compaction.static_pruning import Pruned
from fgc_mm.deploy.comparing import (
    TOLERANCE,
    check_precision,
    largest_gap,
)
from fgc_mm.errors import FGCError
from fgc_mm.models import GatedBackbone
from fgc_mm.models.layer_slice import SLICED_LAYERS
from fgc_mm.sites.eval_mode import eval_mode
from fgc_mm.sites.layer_channels import input_weights


def prune_zeroed(model: ImageClassifier, images: Tensor) -> Pruned:
    """Remove channels with zero filters that no layer reads.

    ``SoftFilterPruningHook`` makes such channels; the small network has the
    same outputs.

    Args:
        model: A trained classifier with a plain backbone; not changed.
        images: (N, 3, H, W) for counting and for checking the result.

    Raises:
        FGCError: The model has gates, no such channel, or half precision;
            images of another dtype, or none; or nothing of the network can
            be removed.
    """
    if isinstance(model.backbone, GatedBackbone):
        raise FGCError(
            'the model has gates, but zeroed filters are removed from dense '
            'networks; give the dense config.'
        )
    check_precision(model.backbone)
    with eval_mode(model), torch.no_grad():
        groups = find_groups(model.backbone, images)
        zeros = [_zeroed(model.backbone, group) for group in groups]
        if not any(zeros):
            raise FGCError(
                'no channel has a zero filter and no reader, among those that '
                'can be removed (each group of a conv or norm must lose '
                'equally many), so there is nothing to remove; train with '
                'SoftFilterPruningHook to the last epoch, or prune by an '
                'importance.'
            )
        removed = channels_to_remove(zip(groups, zeros, strict=True))
        channels = sum(group.channels for group in groups)
        sparsity = sum(map(len, zeros)) / channels
        pruned = Pruned.of(model, removed, images, sparsity, len(groups))
        if not largest_gap(model(images), pruned.model(images)) <= TOLERANCE:
            raise FGCError(
                f'{type(model.backbone).__name__} gives other outputs without '
                'its zeroed channels, so more than filters and their readers '
                'depends on them; it cannot be pruned.'
            )
        return pruned


def _zeroed(backbone: nn.Module, group: ChannelGroup) -> list[int]:
    """The channels that no layer reads, and of which some filter is zero.

    Not every filter: the expansion of squeeze-and-excitation keeps its own.
    Equally many of each block, and not all of any block.
    """
    writers, readers = (
        [m for m in group.members if m.output == output]
        for output in (True, False)
    )
    zero_channels = {
        channel
        for channel in range(group.channels)
        if all(_is_zero(backbone, m, channel) for m in readers)
        and any(_is_zero(backbone, m, channel) for m in writers)
    }
    blocks = [
        [c for c in block if c in zero_channels] for block in group.blocks
    ]
    most = len(group.blocks[0]) - group.least
    count = min(most, *map(len, blocks))
    return [channel for block in blocks for channel in block[:count]]


def _is_zero(backbone: nn.Module, member: GroupLayer, channel: int) -> bool:
    """Whether a conv or linear layer has only zeros for a channel."""
    layer = backbone.get_submodule(member.path)
    if not isinstance(layer, SLICED_LAYERS):
        return False  # a norm: it passes the channel on
    indices = member.indices[channel]
    if member.output:
        return not layer.weight[list(indices)].any()
    return not any(input_weights(layer, index).any() for index in indices)
