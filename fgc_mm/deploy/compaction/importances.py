"""Which channels matter least, by torch-pruning's importances."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch_pruning as tp
from torch import Tensor

from fgc_mm.deploy.compaction.static_groups import ChannelGroup
from fgc_mm.errors import FGCError
from fgc_mm.sites.layout import is_depthwise


class _FPGM(tp.importance.FPGMImportance):
    """FPGM, by the filters alone where a grouped conv reads the channels.

    Its columns there, which torch-pruning 1.6 cannot compare, are no more
    than those of one group.
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
    """How important every channel of a group is.

    Args:
        importance: Of :data:`IMPORTANCES`.
        group: Of the network.

    Returns:
        (channels,) on the CPU.

    Raises:
        FGCError: It scores layers of which the group has none.
    """
    scores = IMPORTANCES[importance]()(group.group)
    if scores is None:
        raise FGCError(
            f'{importance} says nothing of the channels of '
            f'{group.members[0].path}, which no such layer follows; choose '
            'another importance.'
        )
    return scores.detach().cpu()
