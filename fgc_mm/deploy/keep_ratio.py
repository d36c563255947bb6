"""Setting gates to a given keep ratio, without training."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from mmpretrain.models.classifiers import ImageClassifier
from torch import Tensor, nn

from fgc_mm.deploy.firing import (
    SiteFiring,
    check_images,
    firing_statistics,
    gated_backbone,
)
from fgc_mm.errors import FGCError
from fgc_mm.gates.checks import logit
from fgc_mm.models import GatedBackbone
from fgc_mm.sites.eval_mode import eval_mode

SPREAD = 1.0  # standard deviation of the firing rates, in log-odds
TOLERANCE = 0.02  # tolerance of a site's keep ratio


@torch.no_grad()
def set_keep_ratio(
    model: ImageClassifier,
    images: Tensor,
    keep_ratio: float,
    fresh: bool = False,
) -> list[SiteFiring]:
    """Shift the last bias of every gate to reach a keep ratio.

    Every channel gets a firing rate of its own, distributed around the keep
    ratio and neither 0 nor 1, and a bias at which this fraction of the
    images opens it; the gate's own logits determine which images. So masks
    vary between images, as in a trained model, but are meaningless if the
    gates were never trained: use this for timings, not for accuracies.

    It takes one pass of all images: each gate is set before it decides, so
    later gates see its masks.

    Args:
        model: A classifier with a gated backbone, or the backbone; changed.
        images: (N, 3, H, W), all at once in memory.
        keep_ratio: Mean fraction of open channels at every site.
        fresh: For a network that was never trained: its norms, including
            those of gates, first get the images' statistics, and norms with
            zero weights (at residual branches) are set to one.

    Returns:
        The firing rates on these images afterwards.

    Raises:
        FGCError: An invalid keep ratio, fewer than 8 images, images with
            nan, a model that cannot be changed, a gate with logits that are
            nan or inf, or one whose mask is not the sign of a linear layer's
            output. The model is then as it was.
    """
    if not 0 < keep_ratio < 1:
        raise FGCError(
            f'keep ratio {keep_ratio} would give the same mask for all '
            'images; give a number between 0 and 1.'
        )
    check_images(images)
    if len(images) < 8:
        raise FGCError(
            f'{len(images)} images are too few for firing rates between 0 '
            'and 1; give at least 8, better some hundred.'
        )
    backbone = gated_backbone(model)
    _check_changeable(backbone)
    with _restored_on_error(backbone):
        _set_gates(backbone, images, keep_ratio, fresh)
        firing = firing_statistics(backbone, [images])
        _check_reached(backbone, firing, keep_ratio, len(images))
    return firing


def _set_gates(
    backbone: GatedBackbone, images: Tensor, keep_ratio: float, fresh: bool
) -> None:
    generator = torch.Generator().manual_seed(0)
    set_gate = partial(_set_gate, keep_ratio, generator)
    with eval_mode(backbone):
        if fresh:
            with _norms_take_statistics(backbone):
                _run_with_hook(backbone, images, set_gate)
        _run_with_hook(backbone, images, set_gate)


def _check_reached(
    backbone: GatedBackbone,
    firing: list[SiteFiring],
    keep_ratio: float,
    images: int,
) -> None:
    for site, stats in zip(backbone.sites, firing):
        got = float(stats.rate.mean())
        # with few decisions per site, single images change the ratio
        least = max(site.group_sizes or [0]) / site.channels / images
        if abs(got - keep_ratio) > max(TOLERANCE, least):
            raise FGCError(
                f'the gate of {stats.site} opens {got:.1%} after its bias was '
                f'set for {keep_ratio:.1%}, so its mask is not the sign of '
                'its logits, or its logits are the same for all images; '
                'train it instead.'
            )


@contextmanager
def _restored_on_error(network: nn.Module) -> Iterator[None]:
    """Restore parameters and buffers if the block fails."""
    tensors = [*network.parameters(), *network.buffers()]
    before = [tensor.detach().clone() for tensor in tensors]
    try:
        yield
    except BaseException:
        with torch.no_grad():
            for tensor, value in zip(tensors, before, strict=True):
                tensor.copy_(value)
        raise


def _check_changeable(network: nn.Module) -> None:
    if torch.is_inference_mode_enabled():
        return
    for name, value in network.state_dict().items():
        if value.is_inference():
            raise FGCError(
                f'{name} was created under torch.inference_mode, so it cannot '
                'be changed; build and load the model outside of it.'
            )


@contextmanager
def _norms_take_statistics(backbone: GatedBackbone) -> Iterator[None]:
    """Norms store the statistics of the next batch; zero weights become 1."""
    norms = [
        m
        for m in backbone.modules()
        if isinstance(m, nn.modules.batchnorm._BatchNorm)
    ]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        # zero-initialised residual branch; no weight without affine=True
        if norm.weight is not None and not norm.weight.any():
            nn.init.ones_(norm.weight)
        norm.train()
        norm.momentum = 1.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta):
            norm.eval()
            norm.momentum = momentum


def _run_with_hook(
    backbone: GatedBackbone, images: Tensor, hook: Callable[..., None]
) -> None:
    """A gated pass in which a hook runs before every gate."""
    with ExitStack() as stack:
        for site in backbone.sites:
            handle = backbone.gates[site.key].register_forward_pre_hook(
                partial(hook, site.name)
            )
            stack.callback(handle.remove)
        backbone.forward_gated(images)


def _set_gate(
    keep_ratio: float,
    generator: torch.Generator,
    site: str,
    gate: Any,
    args: Any,
) -> None:
    linear = _last_linear(gate)
    # not through __call__: this hook would call itself
    logits = gate.forward(args[0]).logits
    if not logits.isfinite().all():
        raise FGCError(
            f'the gate of {site} has logits that are nan or inf, which no '
            'bias can shift; check its weights and the weights before it.'
        )
    decisions = logits.shape[1]
    if linear.out_features != decisions:
        raise FGCError(
            f'{type(gate).__name__} computes only {linear.out_features} of '
            f'its {decisions} decisions; set the keep ratio before '
            'compaction.'
        )
    sizes = torch.tensor(getattr(gate, 'sizes', [1] * decisions))
    rates = _spread_rates(keep_ratio, sizes, generator)
    threshold = getattr(gate, 'threshold', None)
    least = logit(threshold) if isinstance(threshold, float) else 0.0
    bias: Tensor = linear.bias
    bias += least - _thresholds(logits, rates)


def _thresholds(logits: Tensor, rates: Tensor) -> Tensor:
    """Thresholds of the logits that give the firing rates; (C,).

    If images share a logit (a gate with a dead hidden layer), not every rate
    can be reached; the difference is added to the next channel.
    """
    count = len(logits)
    thresholds, missed = [], 0.0
    for column, rate in zip(logits.t().double(), rates.tolist()):
        order = column.sort(descending=True).values
        steps = (order[:-1] - order[1:] > 1e-6).nonzero().flatten() + 1
        wanted = rate * count + missed
        if not len(steps):  # the same logit for all images
            opened = 0 if wanted < count / 2 else count
            thresholds.append(order[0] + (-1 if opened else 1))
            missed = wanted - opened
            continue
        opened = int(steps[(steps - wanted).abs().argmin()])
        thresholds.append((order[opened - 1] + order[opened]) / 2)
        missed = wanted - opened
    return torch.stack(thresholds).to(logits)


def _last_linear(gate: nn.Module) -> nn.Linear:
    layers = [m for m in gate.modules() if isinstance(m, nn.Linear)]
    if not layers or layers[-1].bias is None:
        raise FGCError(
            f'{type(gate).__name__} does not end in a linear layer with a '
            'bias, which could be shifted; train it to a keep ratio instead.'
        )
    return layers[-1]


def _spread_rates(
    keep_ratio: float, sizes: Tensor, generator: torch.Generator
) -> Tensor:
    """Random firing rates with a given mean over the channels; (G,).

    Args:
        keep_ratio: The mean.
        sizes: (G,) number of channels of each decision.
        generator: Of the random numbers.
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
