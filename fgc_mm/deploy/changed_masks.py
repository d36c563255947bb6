"""Changing the masks of a gated network, to compare networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fgc_mm.gates import GateDecision
from fgc_mm.models import GatedBackbone
from fgc_mm.sites import GateSite

# Map the number of channels of a site to the open ones, (C,) bool.
MASK_PATTERNS: dict[str, Callable[[int], Tensor]] = {
    'every_other': lambda channels: torch.arange(channels) % 2 == 0,
    'last_only': lambda channels: torch.arange(channels) == channels - 1,
    'all_closed': lambda channels: torch.zeros(channels, dtype=torch.bool),
}


@contextmanager
def changed_masks(
    network: nn.Module, new_mask: Callable[[GateSite, Tensor], Tensor]
) -> Iterator[None]:
    """Change the masks of all gates in a ``with`` block.

    Args:
        network: A gated backbone, or one without any gate.
        new_mask: Maps a site and the mask (N, C) of its gate to another mask.
    """

    def change(
        site: GateSite, _: nn.Module, __: Any, decision: GateDecision
    ) -> GateDecision:
        return decision._replace(mask=new_mask(site, decision.mask))

    with ExitStack() as stack:
        if isinstance(network, GatedBackbone):
            for site in network.sites:
                gate = network.gates[site.key]
                hook = gate.register_forward_hook(partial(change, site))
                stack.callback(hook.remove)
        yield


def constant_masks(
    network: nn.Module, opened: Callable[[int], Tensor]
) -> AbstractContextManager[None]:
    """Open the same channels of every image in a ``with`` block.

    Args:
        network: A gated backbone.
        opened: As in :data:`MASK_PATTERNS`.
    """
    return changed_masks(
        network,
        lambda site, mask: opened(site.channels).to(mask).expand_as(mask),
    )
