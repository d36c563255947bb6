"""Soft filter pruning: filters that are set to zero, and may come back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop, Runner
from torch import Tensor, nn

from fgc_mm.engine.loss_progress_hook import (
    bare_model,
    is_schedule_preview,
)
from fgc_mm.errors import FGCError
from fgc_mm.registry import HOOKS
from fgc_mm.sites import GateSite, SiteLayer, find_sites
from fgc_mm.sites.layout import input_weights, layer_widths

CONVS = nn.Conv1d, nn.Conv2d, nn.Conv3d


@HOOKS.register_module()
class SoftFilterPruningHook(Hook):
    """Zeroes the filters of the lowest L2 norm after every epoch.

    They keep training, so the next epoch may choose others (SFP, He et al.,
    IJCAI 2018, arXiv 1808.06866). After the last epoch the layers that read
    the zeroed channels no longer do: ``fgc-mm prune-static --zeroed`` then
    removes them, and no output changes. Norms and biases between a zeroed
    filter and its readers stay as they are until then, as published.

    The convs are the producers of the sites that ``GatedBackbone`` would
    gate, whose channels can leave the network. The published code also
    zeroes filters in front of a residual sum, where the channel remains.

    Args:
        pruning_rate: Share of each conv's filters, in (0, 1); rounded down.
        sites: Which ones, as in ``GatedBackbone``.

    Raises:
        FGCError: The rate is no share; later a backbone without sites, or
            with gates, a reader that is neither conv nor linear layer, or a
            run that counts iterations, all of which are one epoch.
    """

    def __init__(
        self,
        pruning_rate: float,
        sites: str | Sequence[str] | Mapping[str, Any] = 'auto',
    ) -> None:
        known = isinstance(pruning_rate, (int, float))
        if not known or not 0 < pruning_rate < 1:
            raise FGCError(
                f'pruning_rate={pruning_rate!r} of SoftFilterPruningHook is '
                'no share of the filters; give a number between 0 and 1, '
                'such as 0.4.'
            )
        self.pruning_rate = pruning_rate
        self.wanted_sites = sites
        self.sites: list[GateSite] = []

    def before_train(self, runner: Runner) -> None:
        """Find the convs, and what reads their channels."""
        loop = getattr(runner, 'train_loop', None)
        if isinstance(loop, IterBasedTrainLoop):
            raise FGCError(
                f'SoftFilterPruningHook prunes after every epoch, and '
                f'{type(loop).__name__} has one for the whole run; set '
                'by_epoch=True and max_epochs in train_cfg.'
            )
        if is_schedule_preview(runner):
            return
        backbone = bare_model(runner).backbone
        if hasattr(backbone, 'gates'):
            raise FGCError(
                'SoftFilterPruningHook prunes for all images, and the '
                'backbone has gates, which choose per image; use it in a '
                'dense config.'
            )
        found = find_sites(deepcopy(backbone).cpu(), self.wanted_sites)
        self.sites = [site for site in found if site.branch_end is None]
        for site in self.sites:
            for member in site.consumers:
                _check_reader(backbone, member)

    @torch.no_grad()
    def after_train_epoch(self, runner: Runner) -> None:
        """Zero the filters; after the last epoch what reads them, too."""
        if not self.sites:
            return
        backbone = bare_model(runner).backbone
        for site in self.sites:
            conv = backbone.get_submodule(site.producer)
            lowest = lowest_filters(conv.weight, self.pruning_rate)
            conv.weight[lowest] = 0
            if conv.bias is not None:
                conv.bias[lowest] = 0
            if self.is_last_train_epoch(runner):
                for member in site.consumers:
                    _stop_reading(backbone, member, lowest.tolist())


def lowest_filters(weight: Tensor, pruning_rate: float) -> Tensor:
    """Filters of the lowest L2 norm, rounded down to a whole number.

    Args:
        weight: (C, ...) of a conv or linear layer.
        pruning_rate: Share of the C filters.

    Returns:
        (int(C * pruning_rate),) their numbers; of equal norms, the first.
    """
    norms = weight.detach().flatten(1).norm(dim=1)
    return norms.argsort(stable=True)[: int(len(norms) * pruning_rate)]


def _check_reader(backbone: nn.Module, member: SiteLayer) -> None:
    layer = backbone.get_submodule(member.path)
    if not isinstance(layer, (nn.Linear, *CONVS)):
        raise FGCError(
            f'{member.path} is a {type(layer).__name__}, which '
            'SoftFilterPruningHook cannot keep from reading a channel; '
            'choose other sites.'
        )


def _stop_reading(
    backbone: nn.Module, member: SiteLayer, channels: Iterable[int]
) -> None:
    """Zero the columns of a layer that multiply a site's channels."""
    layer = backbone.get_submodule(member.path)
    gone = set(channels)
    inputs, _, _ = layer_widths(layer)
    positions = member.positions or range(inputs)
    for place, channel in enumerate(positions):
        if channel in gone:
            input_weights(layer, place).zero_()
