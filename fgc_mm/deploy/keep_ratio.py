"""Gates made to open a given share of their channels, without training."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fgc_mm.deploy.firing import SiteFiring, firing_statistics, gated_backbone
from fgc_mm.errors import FGCError
from fgc_mm.gates.checks import logit

SPREAD = 1.0  # of the channels' firing rates, in log-odds
MISSED = 0.02  # what a site's keep ratio may be off


@torch.no_grad()
def set_keep_ratio(
    model: nn.Module, images: Tensor, keep_ratio: float, fresh: bool = False
) -> list[SiteFiring]:
    """Shift the last bias of every gate until it opens a share of channels.

    Every channel gets a firing rate of its own, spread around the keep ratio
    and neither 0 nor 1, and a bias at which that share of the images opens
    it; which images these are is what the gate's own logits say. So masks
    vary from image to image, as a trained model's do, but what they choose
    means nothing if the gates were never trained: this is for clocks, not
    for accuracies.

    One pass through all images: a gate is set before it decides, so those
    behind it see what it leaves.

    Args:
        model: A classifier with a gated backbone, or the backbone; changed.
        images: (N, 3, H, W), all at once in memory.
        keep_ratio: Share of its channels that every site opens on average.
        fresh: The network was never trained: its norms, the gates' own among
            them, take the images' statistics first, and those that close a
            residual branch (a weight of 0) open it.

    Returns:
        What the gates then do on these images.

    Raises:
        FGCError: A keep ratio that is no share, fewer than 8 images, or a
            gate that does not open by the sign of a linear layer's output.
    """
    if not 0 < keep_ratio < 1:
        raise FGCError(
            f'keep ratio {keep_ratio} is no share at which masks vary; give a '
            'number between 0 and 1.'
        )
    if len(images) < 8:
        raise FGCError(
            f'{len(images)} images are too few for firing rates between 0 '
            'and 1; give at least 8, better some hundred.'
        )
    backbone = gated_backbone(model)
    generator = torch.Generator().manual_seed(0)
    if fresh:
        _take_statistics(backbone, images, keep_ratio, generator)
    _pass(backbone, images, keep_ratio, generator)
    firing = firing_statistics(backbone, [images])
    for site, stats in zip(backbone.sites, firing):
        got = float(stats.rate.mean())
        # of a decision for many channels one image more or less counts
        least = max(site.group_sizes or [0]) / site.channels / len(images)
        if abs(got - keep_ratio) > max(MISSED, least):
            raise FGCError(
                f'the gate of {stats.site} opens {got:.1%} after its bias was '
                f'set for {keep_ratio:.1%}, so its channels do not open by '
                'the sign of their logits, or its logits are the same for '
                'all images; train it instead.'
            )
    return firing


def _take_statistics(
    backbone: nn.Module,
    images: Tensor,
    keep_ratio: float,
    generator: torch.Generator,
) -> None:
    norms = [
        m
        for m in backbone.modules()
        if isinstance(m, nn.modules.batchnorm._BatchNorm)
    ]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        # a residual branch that starts at zero; without affine=True no weight
        if norm.weight is not None and not norm.weight.any():
            nn.init.ones_(norm.weight)
        norm.train()
        norm.momentum = 1.0
    try:
        _pass(backbone, images, keep_ratio, generator)
    finally:
        for norm, momentum in zip(norms, momenta):
            norm.eval()
            norm.momentum = momentum


def _pass(
    backbone: nn.Module,
    images: Tensor,
    keep_ratio: float,
    generator: torch.Generator,
) -> None:
    hooks = [
        gate.register_forward_pre_hook(
            partial(_set_gate, keep_ratio, generator)
        )
        for gate in backbone.gates.values()
    ]
    try:
        backbone.forward_gated(images)
    finally:
        for hook in hooks:
            hook.remove()


def _set_gate(
    keep_ratio: float, generator: torch.Generator, gate: nn.Module, args: Any
) -> None:
    linear = _last_linear(gate)
    # past the hooks: this one would call itself
    logits = gate.forward(args[0]).logits
    decisions = logits.shape[1]
    if linear.out_features != decisions:
        raise FGCError(
            f'{type(gate).__name__} makes {linear.out_features} of its '
            f'{decisions} decisions only; set the keep ratio before '
            'compaction.'
        )
    sizes = torch.tensor(getattr(gate, 'sizes', [1] * decisions))
    rates = _spread_rates(keep_ratio, sizes, generator)
    threshold = getattr(gate, 'threshold', None)
    least = logit(threshold) if isinstance(threshold, float) else 0.0
    linear.bias += least - _cuts(logits, rates)


def _cuts(logits: Tensor, rates: Tensor) -> Tensor:
    """Between which logits to cut, so that a share lies above; (C,).

    Where images share a logit (a gate whose hidden layer is dead for them),
    not every share can be had; what a channel misses goes to the next one.
    """
    count = len(logits)
    cuts, missed = [], 0.0
    for column, rate in zip(logits.t().double(), rates.tolist()):
        order = column.sort(descending=True).values
        steps = (order[:-1] - order[1:] > 1e-6).nonzero().flatten() + 1
        if not len(steps):  # one logit for all images
            cuts.append(order[0] + (1 if rate + missed / count < 0.5 else -1))
            missed += rate * count - (0 if cuts[-1] > order[0] else count)
            continue
        wanted = rate * count + missed
        opened = int(steps[(steps - wanted).abs().argmin()])
        cuts.append((order[opened - 1] + order[opened]) / 2)
        missed = wanted - opened
    return torch.stack(cuts).to(logits)


def _last_linear(gate: nn.Module) -> nn.Linear:
    layers = [m for m in gate.modules() if isinstance(m, nn.Linear)]
    if not layers or layers[-1].bias is None:
        raise FGCError(
            f'{type(gate).__name__} ends in no linear layer with a bias, so '
            'there is nothing to shift; train it to a keep ratio instead.'
        )
    return layers[-1]


def _spread_rates(
    keep_ratio: float, sizes: Tensor, generator: torch.Generator
) -> Tensor:
    """Firing rates around a mean over the channels; (G,).

    Args:
        keep_ratio: The mean.
        sizes: (G,) channels of each decision.
        generator: Of random numbers.
    """
    noise = SPREAD * torch.randn(len(sizes), generator=generator)
    low, high = -20.0, 20.0
    for _ in range(40):  # the mean rises with the offset
        offset = (low + high) / 2
        rates = (noise + offset).sigmoid()
        if rates.repeat_interleave(sizes).mean() < keep_ratio:
            low = offset
        else:
            high = offset
    return (noise + offset).sigmoid()
