"""Importance of channels, by torch-pruning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch_pruning as tp
from torch import Tensor

from fgc_mm.deploy.compaction.static_groups import ChannelGroup
from fgc_mm.errors import FGCError
from fgc_mm.sites.layer_channels import is_depthwise


class _FPGM(tp.importance.FPGMImportance):
    """FPGM that ignores grouped convs which read the channels.

    torch-pruning 1.6 cannot compare the columns of such a conv, which only
    cover one group.
    """

    def __call__(self, group: Any) -> Tensor | None:
        return super().__call__([item for item in group if _scored(item)])


def _scored(item: Any) -> bool:
    if item.dep.handler != tp.prune_conv_in_channels:
        return True
    layer = item.dep.layer
    return layer.groups == 1 or is_depthwise(layer)


IMPORTANCES: dict[str, Callable[[], tp.importance.Importance]] = {
    'fpgm': _FPGM,
    'group_norm': tp.importance.GroupMagnitudeImportance,
    'bn_scale': tp.importance.BNScaleImportance,
    'random': tp.importance.RandomImportance,
}


def scores_of(importance: str, group: ChannelGroup) -> Tensor:
    """Importance of every channel of a group, (channels,) on the CPU.

    Raises:
        FGCError: The group has no layer that this importance scores.
    """
    scores = IMPORTANCES[importance]()(group.group)
    if scores is None:
        raise FGCError(
            f'{importance} gives no scores for the channels of '
            f'{group.members[0].path}, which no layer of its kind follows; '
            'choose another importance.'
        )
    return scores.detach().cpu()
