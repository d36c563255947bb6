"""Changing the masks of a gated network, to compare networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fgc_mm.gates import GateDecision
from fgc_mm.models import GatedBackbone
from fgc_mm.sites import GateSite

# Maps the number of channels of a site, and its index among the sites, to the
# open ones, (C,) bool.
Pattern = Callable[[int, int], Tensor]
# Sites in succession have different ones: a value that two sites mask has
# channels that only one of them closes.
MASK_PATTERNS: dict[str, Pattern] = {
    'every_other': lambda channels, site: (
        (torch.arange(channels) + site) % 2 == 0
    ),
    'one': lambda channels, site: (
        torch.arange(channels) == (channels - 1 - site) % channels
    ),
    'all_closed': lambda channels, _: torch.zeros(channels, dtype=torch.bool),
}


@contextmanager
def changed_masks(
    network: nn.Module,
    new_mask: Callable[[GateSite, Tensor], Tensor],
    sites: Sequence[GateSite] | None = None,
) -> Iterator[None]:
    """Change the masks of all gates in a ``with`` block.

    Args:
        network: A gated backbone, or one without any gate.
        new_mask: Maps a site and the mask (N, C) of its gate to another mask.
        sites: The sites, if the network does not list all of its own.
    """

    def change(
        site: GateSite, _: nn.Module, __: Any, decision: GateDecision
    ) -> GateDecision:
        return decision._replace(mask=new_mask(site, decision.mask))

    with ExitStack() as stack:
        if isinstance(network, GatedBackbone):
            for site in network.sites if sites is None else sites:
                gate = network.gates[site.key]
                hook = gate.register_forward_hook(partial(change, site))
                stack.callback(hook.remove)
        yield


def constant_masks(
    network: nn.Module,
    opened: Pattern,
    sites: Sequence[GateSite] | None = None,
) -> AbstractContextManager[None]:
    """As :func:`changed_masks`, with one pattern for every image."""
    if sites is None:
        sites = network.sites if isinstance(network, GatedBackbone) else ()
    numbers = {site.key: number for number, site in enumerate(sites)}

    def constant(site: GateSite, mask: Tensor) -> Tensor:
        mask_of_site = opened(site.channels, numbers[site.key])
        return mask_of_site.to(mask).expand_as(mask)

    return changed_masks(network, constant, sites)
