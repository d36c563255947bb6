"""Comparing a compact network with the masked one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from fgc_mm.deploy.changed_masks import changed_masks
from fgc_mm.models import ChannelMap, GatedBackbone
from fgc_mm.models.channel_map import SiteChannels
from fgc_mm.models.layer_slice import LayerSlice
from fgc_mm.sites import GateSite
from fgc_mm.sites.copying import copy_network


def fixed_decisions(
    backbone: GatedBackbone, channel_map: ChannelMap
) -> AbstractContextManager[None]:
    """Run the masked network with the decisions that a channel map fixes.

    Channels that it removes or closes are closed; those that are no longer
    gated are open, whatever their gates decide.
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
    maps. Both compute in float64 if they can, so that a different order of
    additions does not change a decision.

    Yields:
        The names of the sites whose gates differ; complete after the block.
    """
    found: set[str] = set()
    sites = {site.name: site for site in whole.sites}
    with ExitStack() as stack:
        if isinstance(small, GatedBackbone):  # it has a decision left
            for site in small.sites:
                gate = whole.gates[site.key]
                pair = _GatePair(
                    copy_network(gate),
                    copy_network(small.gates[site.key]),
                    channel_map.layers.get(site.producer),
                    channel_map.sites[site.name],
                )
                generator = torch.Generator().manual_seed(0)
                shape = (64, sites[site.name].in_channels, 2, 2)
                x = torch.randn(shape, generator=generator)
                exact = pair.in_float64(x) or pair
                compare = partial(_compare, exact, site.name, found)
                compare(gate, (x,))
                hook = gate.register_forward_pre_hook(compare)
                stack.callback(hook.remove)
        yield found


def _compare(
    pair: _GatePair,
    name: str,
    differing: set[str],
    _: nn.Module,
    args: tuple[Tensor],
) -> None:
    """Forward pre-hook of the whole gate: add the site if its gates differ."""
    if not pair.agree_on(args[0]):
        differing.add(name)


@dataclass(frozen=True)
class _GatePair:
    """The whole gate of a site, and the one with fewer channels.

    Attributes:
        whole: The whole gate.
        small: The other.
        producer: What remains of the layer whose input they read.
        entry: What remains of the site.
        least: Fraction of the decisions that must be the same; rounding
            changes a few.
    """

    whole: nn.Module
    small: nn.Module
    producer: LayerSlice | None
    entry: SiteChannels
    least: float = 0.99

    def in_float64(self, x: Tensor) -> _GatePair | None:
        """The pair in float64, which must decide the same everywhere.

        On the CPU, since not every device has float64. None if its code
        needs another dtype for ``x``.
        """
        whole, small = (
            copy_network(gate).to('cpu', torch.float64)
            for gate in (self.whole, self.small)
        )
        pair = replace(self, whole=whole, small=small, least=1.0)
        try:
            pair.agree_on(x)
        except Exception:  # e.g. it converts its input to float32
            return None
        return pair

    def agree_on(self, x: Tensor) -> bool:
        """Whether both decide alike; ``x`` (N, C_in, ...) is for the whole."""
        x = x.to(next(self.whole.parameters(), x))
        every = range(x.shape[1])
        reads = list(self.producer.inputs if self.producer else every)
        zeros = torch.zeros_like(x)
        zeros[:, reads] = x[:, reads]
        wanted, got = self.whole(zeros), self.small(x[:, reads])
        kept, gated = self.entry.kept, list(self.entry.gated)
        indices = [kept.index(channel) for channel in gated]
        alike = torch.isclose(
            wanted.mask[:, gated].double(),
            got.mask[:, indices].double(),
            rtol=1e-3,
            atol=1e-5,
            equal_nan=True,
        )
        return not gated or float(alike.double().mean()) >= self.least
