"""Comparing a compact network with the masked one."""

from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from fgc_mm.deploy.changed_masks import changed_masks
from fgc_mm.models import ChannelMap, GatedBackbone
from fgc_mm.models.channel_map import SiteChannels
from fgc_mm.models.layer_slice import LayerSlice
from fgc_mm.sites import GateSite


def fixed_decisions(
    backbone: GatedBackbone, channel_map: ChannelMap
) -> AbstractContextManager[None]:
    """Run the masked network with the decisions that a channel map fixes.

    Channels that it removes or closes are closed; those that are no longer
    gated are open, whatever their gates decide.

    Args:
        backbone: The whole gated network.
        channel_map: Made for it.
    """

    def fix(site: GateSite, mask: Tensor) -> Tensor:
        entry = channel_map.sites[site.name]
        gated = list(entry.gated)
        fixed = torch.zeros_like(mask)
        fixed[:, sorted({*entry.kept} - {*entry.closed})] = 1
        fixed[:, gated] = mask[:, gated]
        return fixed

    return changed_masks(backbone, fix)


def same_decisions(
    whole: nn.Module,
    small: nn.Module,
    in_channels: int,
    producer: LayerSlice | None,
    entry: SiteChannels,
) -> bool:
    """Whether a small gate decides like the whole one for its channels.

    Args:
        whole: The whole gate.
        small: The gate with fewer channels.
        in_channels: Input channels of the whole gate.
        producer: What remains of the layer whose input they read.
        entry: What remains of the site.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, in_channels, 2, 2, generator=generator)
    x = x.to(next(whole.parameters()))
    reads = list(producer.inputs) if producer else [*range(in_channels)]
    zeros = torch.zeros_like(x)
    zeros[:, reads] = x[:, reads]
    wanted, got = whole(zeros), small(x[:, reads])
    indices = [entry.kept.index(channel) for channel in entry.gated]
    gated = list(entry.gated)
    alike = torch.isclose(
        wanted.mask[:, gated].float(),
        got.mask[:, indices].float(),  # float32 without any gate left
        rtol=1e-3,
        atol=1e-5,
    )
    # rounding may change the sign of a few logits
    return gated == [] or float(alike.float().mean()) > 0.99
