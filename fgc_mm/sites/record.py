"""What a site did for one batch, as gate losses and counts read it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fgc_mm.sites.site import GateSite


@dataclass(frozen=True)
class GateRecord:
    """What a site did for one batch.

    Of G decisions for C channels: G is C, unless the gate decides for groups
    of neighbouring channels (:attr:`GateSite.group_sizes`).

    Attributes:
        site: The site.
        activation: (N, C, ...) what the gate multiplies, before it does
            (its means over all positions where no consumer reads it whole);
            ``None`` in evaluation unless it was asked for.
        logits: (N, G) the gate's linear output.
        probs: (N, G) probability, in [0, 1], that a decision opens its
            channels.
        mask: (N, C) what the activation is multiplied with; 0 is closed.
        saliency: (N, G) what a gate that scales its channels would scale
            those of each decision with were they open; ``None`` for other
            gates.
    """

    site: GateSite
    activation: Tensor | None
    logits: Tensor
    probs: Tensor
    mask: Tensor
    saliency: Tensor | None = None

    @property
    def gate_strength(self) -> Tensor:
        """The saliency, or the probability of a gate that has none; (N, G)."""
        return self.probs if self.saliency is None else self.saliency


def keep_ratio(records: Sequence[GateRecord]) -> Tensor:
    """Share of gated channels that are open, over sites and images; ()."""
    masks = torch.cat([r.mask.detach().flatten() for r in records])
    return (masks != 0).float().mean()
