"""Constant masks for verification, so that every site is tested."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from fgc_mm.gates import GateDecision
from fgc_mm.models import GatedBackbone

# Maps the number of channels of a site to the open ones, (C,) bool.
MaskPattern = Callable[[int], Tensor]
LOGIT = 40.0  # of an open channel; its probability is 1 in float32


class ConstantGate(nn.Module):
    """Opens the same channels of every image.

    Args:
        logits: (C,); channels above 0 are open.
    """

    logits: Tensor

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.register_buffer('logits', logits)

    def forward(self, x: Tensor) -> GateDecision:
        """Return the same decision for all images."""
        logits = self.logits.expand(len(x), -1)
        return GateDecision(logits, logits.sigmoid(), (logits > 0).to(x))


def every_other(channels: int) -> Tensor:
    """Every other channel open; (C,) bool."""
    return torch.arange(channels) % 2 == 0


def last_only(channels: int) -> Tensor:
    """The last channel open; (C,) bool."""
    return torch.arange(channels) == channels - 1


def all_closed(channels: int) -> Tensor:
    """No channel open; (C,) bool."""
    return torch.zeros(channels, dtype=torch.bool)


@contextmanager
def constant_masks(
    backbone: GatedBackbone, mask_pattern: MaskPattern
) -> Iterator[None]:
    """Replace the gates of a masked backbone by constant masks.

    Args:
        backbone: The masked backbone; its gates are restored afterwards.
        mask_pattern: Maps a number of channels to the open ones, (C,) bool.
    """
    site_hooks = backbone._site_hooks
    gates = [hooks.gate for hooks in site_hooks]
    for hooks in site_hooks:
        mask = mask_pattern(hooks.site.channels)
        hooks.gate = ConstantGate(torch.where(mask, LOGIT, -LOGIT))
    try:
        yield
    finally:
        for hooks, gate in zip(site_hooks, gates):
            hooks.gate = gate
