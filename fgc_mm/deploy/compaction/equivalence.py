"""Comparing a compact network with the masked one."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import partial

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


@contextmanager
def differing_gates(
    whole: GatedBackbone, small: nn.Module, channel_map: ChannelMap
) -> Iterator[set[str]]:
    """Compare the gates of both networks while the whole one runs.

    Each small gate must decide like the whole one, for the remaining
    channels, on what the whole one gets in the ``with`` block, and on random
    maps. In float64, in which a different order of the additions changes no
    decision.

    Args:
        whole: The whole network.
        small: The compact one.
        channel_map: What remains.

    Returns:
        The names of the sites whose gates differ; complete after the block.
    """
    found: set[str] = set()
    sites = {site.name: site for site in whole.sites}
    with ExitStack() as stack:
        if isinstance(small, GatedBackbone):  # it has a decision left
            for site in small.sites:
                gate = whole.gates[site.key]
                pair = _GatePair(
                    _on_cpu(gate),
                    _on_cpu(small.gates[site.key]),
                    channel_map.layers.get(site.producer),
                    channel_map.sites[site.name],
                )
                compare = partial(_compare, pair, site.name, found)
                compare(gate, (_random_maps(sites[site.name].in_channels),))
                hook = gate.register_forward_pre_hook(compare)
                stack.callback(hook.remove)
        yield found


def _compare(
    pair: '_GatePair',
    name: str,
    differing: set[str],
    _: nn.Module,
    args: tuple[Tensor],
) -> None:
    """Forward pre-hook of the whole gate: add the site if its gates differ."""
    if not pair.agree_on(args[0]):
        differing.add(name)


def _on_cpu(gate: nn.Module) -> nn.Module:
    """A copy in float64, which not every device has."""
    return deepcopy(gate).to('cpu', torch.float64)


def _random_maps(channels: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(64, channels, 2, 2, generator=generator)


@dataclass(frozen=True)
class _GatePair:
    """The whole gate of a site, and the one with fewer channels.

    Attributes:
        whole: The whole gate, in float64.
        small: The other, in float64.
        producer: What remains of the layer whose input they read.
        entry: What remains of the site.
    """

    whole: nn.Module
    small: nn.Module
    producer: LayerSlice | None
    entry: SiteChannels

    def agree_on(self, x: Tensor) -> bool:
        """Whether both decide alike for (N, C_in, ...) of the whole gate."""
        x = x.to('cpu', torch.float64)
        every = range(x.shape[1])
        reads = list(self.producer.inputs if self.producer else every)
        zeros = torch.zeros_like(x)
        zeros[:, reads] = x[:, reads]
        wanted, got = self.whole(zeros), self.small(x[:, reads])
        kept, gated = self.entry.kept, list(self.entry.gated)
        indices = [kept.index(channel) for channel in gated]
        return torch.allclose(
            wanted.mask[:, gated].double(),
            got.mask[:, indices].double(),
            rtol=1e-3,
            atol=1e-5,
        )
