"""Soft filter pruning: zeroed filters are trained further."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.hooks import EMAHook, Hook
from mmengine.runner import IterBasedTrainLoop, Runner
from torch import Tensor, nn

from fgc_mm.engine.loss_progress_hook import (
    is_schedule_preview,
    unwrapped_model,
)
from fgc_mm.errors import FGCError
from fgc_mm.registry import HOOKS
from fgc_mm.sites import GateSite, SiteLayer, find_sites
from fgc_mm.sites.copying import copy_network
from fgc_mm.sites.layer_channels import input_weights, layer_widths


@HOOKS.register_module()
class SoftFilterPruningHook(Hook):
    """Zeroes the filters of the lowest L2 norm after every epoch.

    They keep training, so other filters may be chosen after the next epoch
    (SFP, He et al., IJCAI 2018, arXiv 1808.06866). After the last epoch the
    weights of the following layers that read the zeroed channels are zeroed
    too, so that ``fgc-mm prune-static --zeroed`` can remove the channels
    without changing an output. Until then norms and biases between a zeroed
    filter and the next layer are not changed, as published.

    Only the producers of sites are pruned, because their channels can be
    removed. The published code also zeroes filters before a residual sum,
    where the channel cannot be removed.

    Args:
        pruning_rate: Fraction of each conv's filters, in (0, 1); their number
            is rounded down.
        sites: The sites, as in ``GatedBackbone``.

    Raises:
        FGCError: The rate is not in (0, 1). Before training: the backbone has
            no sites or has gates, a layer of a site computes its weight in
            every pass, the run counts iterations instead of epochs, or
            has an EMAHook.
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
                'not a fraction of the filters; give a number between 0 and '
                '1, such as 0.4.'
            )
        self.pruning_rate = pruning_rate
        self.wanted_sites = sites
        self.sites: list[GateSite] = []

    def before_train(self, runner: Runner) -> None:
        """Find the convs, and the layers that read their channels."""
        loop = getattr(runner, 'train_loop', None)
        if isinstance(loop, IterBasedTrainLoop):
            raise FGCError(
                f'SoftFilterPruningHook prunes after every epoch, but '
                f'{type(loop).__name__} treats the whole run as one; set '
                'by_epoch=True and max_epochs in train_cfg.'
            )
        if is_schedule_preview(runner):
            return
        if any(isinstance(hook, EMAHook) for hook in runner.hooks):
            raise FGCError(
                'SoftFilterPruningHook sets filters to zero, but EMAHook '
                'tests and saves an average of the weights, in which these '
                'filters are not zero; remove one of the two from '
                'custom_hooks.'
            )
        backbone = unwrapped_model(runner).backbone
        if hasattr(backbone, 'gates'):
            raise FGCError(
                'SoftFilterPruningHook prunes for all images, but the '
                'backbone has gates, which decide per image; use it in a '
                'dense config.'
            )
        found = find_sites(copy_network(backbone).cpu(), self.wanted_sites)
        sites = [site for site in found if site.branch_end is None]
        for site in sites:
            _check_parameters(backbone, site)
        self.sites = sites

    @torch.no_grad()
    def after_train_epoch(self, runner: Runner) -> None:
        """Zero the filters; after the last epoch also their readers."""
        if not self.sites:
            return
        backbone = unwrapped_model(runner).backbone
        for site in self.sites:
            conv = backbone.get_submodule(site.producer)
            channels = torch.arange(len(conv.weight))
            if site.outputs[0].positions is not None:  # e.g. two per channel
                channels = torch.tensor(site.outputs[0].positions)
            channels = channels.to(conv.weight.device)
            lowest = lowest_channels(conv.weight, channels, self.pruning_rate)
            filters = torch.isin(channels, lowest)
            conv.weight[filters] = 0
            if conv.bias is not None:
                conv.bias[filters] = 0
            if self.is_last_train_epoch(runner):
                for consumer in site.consumers:
                    _stop_reading(backbone, consumer, {*lowest.tolist()})


def lowest_channels(
    weight: Tensor, channels: Tensor, pruning_rate: float
) -> Tensor:
    """The channels whose filters have the lowest L2 norm, taken together.

    Args:
        weight: (R, ...) of a conv or linear layer.
        channels: (R,) the channel of each filter, below C; -1 for none.
        pruning_rate: Fraction of the C channels.

    Returns:
        (floor(C * pruning_rate),); of equal norms, the first.
    """
    squares = weight.detach().flatten(1).norm(dim=1).square()
    own = channels >= 0
    norms = squares.new_zeros(int(channels.max()) + 1)
    norms.index_add_(0, channels[own], squares[own])
    # 1e-9: 100 * 0.29 is less than 29
    count = int(len(norms) * pruning_rate + 1e-9)
    return norms.argsort(stable=True)[:count]


def _check_parameters(backbone: nn.Module, site: GateSite) -> None:
    """Check that the layers of a site store what is set to zero."""
    zeroed = [(x.path, 'weight') for x in site.consumers]
    zeroed += [(site.producer, 'weight'), (site.producer, 'bias')]
    for path, name in zeroed:
        if name not in backbone.get_submodule(path)._parameters:
            raise FGCError(
                f'SoftFilterPruningHook sets parts of the {name} of {path} '
                'to zero, but it is not a parameter: it is computed in every '
                'pass (weight_norm, spectral_norm or prune of '
                'torch.nn.utils), so the zeros would be lost; remove that '
                'from the layer, or leave its site out of sites.'
            )
    for consumer in site.consumers:
        _check_zeros(backbone, consumer.path)


@torch.no_grad()
def _check_zeros(backbone: nn.Module, path: str) -> None:
    """Check that a layer does not read an input whose weights are zero."""
    layer = copy_network(backbone.get_submodule(path)).cpu().float()
    input_weights(layer, 0).zero_()
    inputs, _, _ = layer_widths(layer)
    kernel = getattr(layer, 'kernel_size', ())
    steps = zip(kernel, getattr(layer, 'dilation', ()))
    ones = torch.ones(1, inputs, *(1 + (k - 1) * d for k, d in steps))
    other = ones.clone()
    other[:, 0] = 2
    if not torch.equal(layer(ones), layer(other)):
        raise FGCError(
            f'{path} ({type(layer).__name__}) computes its weight in every '
            'pass, so the zeros of SoftFilterPruningHook would be lost; use '
            'a plain layer, or leave its site out of sites.'
        )


def _stop_reading(
    backbone: nn.Module, consumer: SiteLayer, channels: set[int]
) -> None:
    """Zero the weights of a layer that multiply some of a site's channels."""
    layer = backbone.get_submodule(consumer.path)
    inputs, _, _ = layer_widths(layer)
    for index, channel in enumerate(consumer.positions or range(inputs)):
        if channel in channels:
            input_weights(layer, index).zero_()
