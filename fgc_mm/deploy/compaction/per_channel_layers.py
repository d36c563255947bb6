"""Per-channel modules (norms and the like) between a site's layers."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fgc_mm.sites.channel_flow import ChannelFlow
from fgc_mm.sites.channel_probe import ChannelProbe, ProbePoint
from fgc_mm.sites.image_size import small_images
from fgc_mm.sites.layer_channels import CONV_OR_LINEAR
from fgc_mm.sites.probed_backbone import ProbedBackbone
from fgc_mm.sites.site import GateSite, SiteLayer


class _NormProbe(ChannelProbe):
    """Also observes the outputs of modules with parameters of their own."""

    def after_module(
        self, name: str, module: nn.Module, output: Tensor
    ) -> Tensor | None:
        if _per_channel(module) and output.dim() > 1:
            self._observe(ProbePoint('norm', name), output)
        return super().after_module(name, module, output)


def _per_channel(module: nn.Module) -> bool:
    """Whether it has a vector: a norm, a ``PReLU``, a layer scale."""
    own = [
        *module.parameters(recurse=False),
        *module.buffers(recurse=False),
    ]
    return not isinstance(module, CONV_OR_LINEAR) and any(
        max(p.shape, default=1) > 1 for p in own
    )


def per_channel_layers(
    backbone: nn.Module, sites: Sequence[GateSite]
) -> dict[str, tuple[SiteLayer, ...]]:
    """The per-channel modules that every site's channels pass through.

    Found by probing, like the sites (:mod:`fgc_mm.sites.channel_flow`).

    Returns:
        By site name, modules with the index of the site's channel for each
        of their channels, in the order of the forward pass. Modules shared
        by several maps, or mixing channels, are left out.
    """
    images = small_images(backbone)
    with ProbedBackbone(backbone) as probed:
        probe = _NormProbe(probed, images)
        flow = ChannelFlow(probe, every=False)
        return {
            site.name: _per_channel_layers(probe, flow, site) for site in sites
        }


def _per_channel_layers(
    probe: ChannelProbe, flow: ChannelFlow, site: GateSite
) -> tuple[SiteLayer, ...]:
    if site.producer not in probe.sources:  # depthwise: nothing to remove
        return ()
    producer = next(m for m in site.outputs if m.path == site.producer)
    positions = producer.positions
    fold = 1 if positions is None else len(positions) // site.channels
    return tuple(
        SiteLayer(point.path, tuple(arrival.positions))
        for point, arrival in flow.arrivals(site.producer, fold).items()
        if point.kind == 'norm' and arrival.unmixed and probe.runs[point] == 1
    )


def positions_of(member: SiteLayer, channels: int) -> torch.Tensor:
    """A layer's positions as a tensor; all channels in order if ``None``."""
    if member.positions is None:
        return torch.arange(channels)
    return torch.tensor(member.positions)
