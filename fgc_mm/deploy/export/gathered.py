"""Running only the open channels of one image with ONNX operations."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

from fgc_mm.deploy.changed_masks import MASK_PATTERNS, constant_masks
from fgc_mm.deploy.compaction.per_channel_layers import per_channel_layers
from fgc_mm.deploy.comparing import (
    TOLERANCE,
    check_precision,
    finite_outputs,
    largest_gap,
)
from fgc_mm.deploy.firing import gated_backbone
from fgc_mm.errors import FGCError
from fgc_mm.functional.pooling import global_average_pool
from fgc_mm.models import GatedBackbone
from fgc_mm.sites.copying import copy_network
from fgc_mm.sites.eval_mode import eval_mode
from fgc_mm.sites.layer_channels import layer_widths
from fgc_mm.sites.site import GateSite, SiteLayer

MIN_CHANNELS = 2  # minimum number of channels that are computed
SiteNorms = Mapping[str, Sequence[SiteLayer]]  # per site


class _OpenChannels:
    """The open channels of one site, from its producer to its consumers."""

    def __init__(self, gate: nn.Module, site: GateSite, narrow: bool) -> None:
        self.gate = gate
        self.channels = site.channels
        self.narrow = narrow  # whether the producer computes only these
        self.takes_means = _takes_means(gate, site.in_channels)
        self.index: Tensor
        self.factor: Tensor

    def decide(self, seen: Tensor) -> None:
        """Run the gate for one image: indices of open channels, factors.

        Exporters specialise convs of zero or one channel, so at least two
        are computed; a closed one gets the factor 0.
        """
        mask = self.gate(seen).mask[0]
        opened = mask != 0
        first = torch.arange(self.channels, device=mask.device) < MIN_CHANNELS
        opened = opened | (first & (opened.sum() < MIN_CHANNELS))
        self.index = opened.nonzero().squeeze(1)
        torch._check(self.index.shape[0] >= MIN_CHANNELS)
        torch._check(self.index.shape[0] <= self.channels)
        self.factor = mask.index_select(0, self.index)

    def gather(self, x: Tensor) -> Tensor:
        """The open channels of a map, multiplied by their factors."""
        if not self.narrow:
            x = x.index_select(1, self.index)
        return x * self.factor.reshape(1, -1, *[1] * (x.dim() - 2))

    def spread(self, x: Tensor) -> Tensor:
        """(1, open, ...) with zeros for the other channels; (1, C, ...)."""
        zeros = x.new_zeros(1, self.channels, *x.shape[2:])
        return zeros.index_copy(1, self.index, x)


class _GatheredLayer(nn.Module):
    """A conv or linear layer that reads or writes a site's open channels."""

    def __init__(
        self,
        layer: Any,
        norm: Any,
        reads: _OpenChannels | None,
        writes: _OpenChannels | None,
    ) -> None:
        super().__init__()
        self.layer = layer
        self.weight: Tensor = layer.weight
        self.bias: Tensor | None = layer.bias
        if norm is not None:
            self.weight, self.bias = fuse_conv_bn_weights(
                self.weight, self.bias, norm.running_mean, norm.running_var,
                norm.eps, norm.weight, norm.bias,
            )  # fmt: skip
        self._reads: Any = reads
        self._writes: Any = writes

    def forward(self, x: Tensor) -> Tensor:
        """One image; (1, C_in or open, ...) -> (1, C_out or open, ...)."""
        weight, bias = self.weight, self.bias
        seen = x
        if self._reads is not None:
            x = self._reads.gather(x)
            weight = weight.index_select(1, self._reads.index)
        if self._writes is not None:
            if self._reads is not None:
                means = self._writes.takes_means
                kept = global_average_pool(x) if means else x
                seen = self._reads.spread(kept)
            self._writes.decide(seen)
            if self._writes.narrow:
                weight = weight.index_select(0, self._writes.index)
                if bias is not None:
                    bias = bias.index_select(0, self._writes.index)
        return _run_layer(self.layer, x, weight, bias)


@torch.no_grad()
def _takes_means(gate: nn.Module, channels: int) -> bool:
    """Whether a gate decides by the means of a map, and accepts these."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, channels, 3, 3, generator=generator)
    try:
        x = x.to(next(gate.parameters()))
        wanted, got = gate(x).logits, gate(global_average_pool(x)).logits
    except Exception:  # its code may need a map, or it has no parameter
        return False
    return bool(largest_gap(wanted, got) <= TOLERANCE)


def _run_layer(
    layer: Any, x: Tensor, weight: Tensor, bias: Tensor | None
) -> Tensor:
    """Run a conv or linear layer with other weights, same padding."""
    if isinstance(layer, nn.Linear):
        return F.linear(x, weight, bias)
    return layer._conv_forward(x, weight, bias)


@torch.no_grad()
def _is_plain(layer: Any) -> bool:
    """Whether a layer only multiplies by its weight, at any image size.

    False for a conv that standardises its weight (over all inputs, not the
    gathered ones), or that pads depending on the image size.
    """
    sizes: list[tuple[int, ...]]
    if isinstance(layer, nn.Linear):
        sizes = [(1, layer.in_features)]
    elif (
        not isinstance(layer, nn.Conv2d)
        or type(layer)._conv_forward is not nn.Conv2d._conv_forward
    ):
        return False
    else:
        reach = [k * d for k, d in zip(layer.kernel_size, layer.dilation)]
        sizes = [
            (1, layer.in_channels, *(n + more for n in reach))
            for more in (2, 3)
        ]
    generator = torch.Generator().manual_seed(0)
    for size in sizes:
        x = torch.randn(size, generator=generator).to(layer.weight)
        own = layer.forward(x)
        plain = _run_layer(layer, x, layer.weight, layer.bias)
        if own.shape != plain.shape or not torch.allclose(own, plain):
            return False
    return True


@torch.no_grad()
def gathered(
    model: nn.Module, images: Tensor
) -> tuple[nn.Module, dict[str, str]]:
    """A copy of a gated classifier that computes only open channels.

    Gate -> indices of the open channels -> gathered weights -> conv with
    these weights. It takes one image at a time, and is meant for export.

    Args:
        model: A classifier with a gated backbone; it is not changed.
        images: (N, 3, H, W) for checking the copy; the first four are used.

    Returns:
        The copy, and for every site what is gathered: ``'both'`` (the
        producer's outputs and the consumers' inputs), ``'consumers'`` (the
        producer computes all channels, because a module with a fixed width
        follows, such as a squeeze-excite or a depthwise conv, whose number of
        groups is fixed in ONNX), or ``'masked'`` (as in the gated network).

    Raises:
        FGCError: No gates, weights of too low a precision, or the copy's
            features differ.
    """
    check_precision(model)
    with eval_mode(model):
        return _checked(model, images[:4].split(1))


def _checked(
    model: nn.Module, images: Sequence[Tensor]
) -> tuple[nn.Module, dict[str, str]]:
    backbone = gated_backbone(model)
    norms = per_channel_layers(backbone.backbone, backbone.sites)
    plan = _plan(backbone, norms)
    wanted = _features(backbone, backbone.sites, images)
    without_producers = {
        name: 'consumers' if what == 'both' else what
        for name, what in plan.items()
    }
    for attempt in (plan, without_producers):
        gathered_copy = _gathered(model, attempt, norms)
        try:
            copied = gated_backbone(gathered_copy)
            got = _features(copied, backbone.sites, images)
        except Exception:  # e.g. code with fixed widths
            continue
        if all(
            largest_gap(want, found) <= TOLERANCE
            for want, found in zip(wanted, got, strict=True)
            if want is not None
        ):
            return gathered_copy, attempt
    raise FGCError(
        f'{type(backbone.backbone).__name__} has other features when its '
        'open channels are gathered; export the masked model (without '
        '--dynamic).'
    )


def _features(
    backbone: GatedBackbone,
    sites: Sequence[GateSite],
    images: Sequence[Tensor],
) -> list[Any]:
    """Features of the images, and those of the first one with constant masks.

    The gates may open all channels of the images, which would hide code that
    depends on the number of channels. Each is compared by itself, since gates
    that scale have other factors than constant masks.
    """
    features: list[Any] = [[backbone(image) for image in images]]
    for opened in MASK_PATTERNS.values():
        with constant_masks(backbone, opened, sites):
            features.append(finite_outputs(lambda: backbone(images[0])))
    return features


def _plan(backbone: GatedBackbone, norms: SiteNorms) -> dict[str, str]:
    """What to gather at every site."""
    plan = {
        site.name: _site_mode(backbone.backbone, site, norms[site.name])
        for site in backbone.sites
    }
    while True:  # a layer is either gathered or masked, not both
        masked = {
            member.path
            for site in backbone.sites
            if plan[site.name] == 'masked'
            for member in (*site.outputs, *site.consumers)
        }
        lost = [
            site.name
            for site in backbone.sites
            if plan[site.name] != 'masked'
            and masked & {site.name, *(m.path for m in site.consumers)}
        ]
        if not lost:
            return plan
        plan |= dict.fromkeys(lost, 'masked')


def _site_mode(
    plain: nn.Module, site: GateSite, norms: Sequence[SiteLayer]
) -> str:
    producer = plain.get_submodule(site.producer)
    readers = [plain.get_submodule(m.path) for m in site.consumers]
    simple = all(
        m.positions is None and layer_widths(layer)[2] == 1
        for m, layer in zip(site.consumers, readers)
    )
    if site.branch_end or site.channels < MIN_CHANNELS or not simple:
        return 'masked'
    if not all(map(_is_plain, (producer, *readers))):
        return 'masked'
    alone = [m.path for m in site.outputs] == [site.producer]
    foldable = len(norms) <= 1 and all(
        isinstance(norm := plain.get_submodule(m.path), nn.BatchNorm2d)
        and norm.running_mean is not None
        and [*(m.positions or ())] == [*range(site.channels)]
        for m in norms
    )
    whole = (
        site.outputs[0].positions is None and layer_widths(producer)[2] == 1
    )
    return 'both' if alone and foldable and whole else 'consumers'


def _gathered(
    model: nn.Module, plan: dict[str, str], norms: SiteNorms
) -> nn.Module:
    gathered_copy = copy_network(model)
    backbone = gated_backbone(gathered_copy)
    plain = backbone.backbone
    reads: dict[str, _OpenChannels] = {}
    writes: dict[str, _OpenChannels] = {}
    folded: dict[str, str] = {}
    for site in backbone.sites:
        what = plan[site.name]
        if what == 'masked':
            continue
        gate = backbone.gates[site.key]
        opened = _OpenChannels(gate, site, what == 'both')
        writes[site.producer] = opened
        reads |= dict.fromkeys((m.path for m in site.consumers), opened)
        if what == 'both' and norms[site.name]:
            folded[site.producer] = norms[site.name][0].path  # the only one
    for path in dict.fromkeys([*reads, *writes]):
        norm_path = folded.get(path)
        layer = _GatheredLayer(
            plain.get_submodule(path),
            norm_path and plain.get_submodule(norm_path),
            reads.get(path),
            writes.get(path),
        )
        plain.set_submodule(path, layer)
        if norm_path:
            plain.set_submodule(norm_path, nn.Identity())
    # the hooks of the other sites must do nothing
    backbone._site_hooks = [
        hooks
        for hooks in backbone._site_hooks
        if plan[hooks.site.name] == 'masked'
    ]
    backbone.sites = [hooks.site for hooks in backbone._site_hooks]
    gathered_copy.eval()
    return gathered_copy
