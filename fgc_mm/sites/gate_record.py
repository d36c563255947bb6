"""Record of a site for one batch, used by gate losses and MACs counting."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fgc_mm.errors import FGCError
from fgc_mm.functional.mask_targets import channel_scores
from fgc_mm.sites.layer_channels import merge_peaks
from fgc_mm.sites.site import GateSite


@dataclass(frozen=True)
class GateRecord:
    """A site's activation, gate outputs and mask for one batch.

    A gate makes G decisions for C channels: G is C, unless it decides for
    groups of neighbouring channels (:attr:`GateSite.group_sizes`).

    Attributes:
        site: The site.
        activation: (N, C, ...) the activation before masking; its means over
            all positions, (N, C), if no consumer reads all channels; ``None``
            in evaluation unless requested.
        logits: (N, G) the gate's linear output.
        probs: (N, G) probability, in [0, 1], that a decision opens its
            channels.
        mask: (N, C) factor of the activation; 0 is closed.
        saliency: (N, G) for gates that scale their channels: the factor that
            each decision's channels have if they are open; ``None`` for other
            gates.
        parts: What the consumers read, if no single one reads a map of every
            channel: each with the indices of its channels, (c,), and their
            values, (N, c, ...); used by :attr:`peaks`.
    """

    site: GateSite
    activation: Tensor | None
    logits: Tensor
    probs: Tensor
    mask: Tensor
    saliency: Tensor | None = None
    parts: Sequence[tuple[Tensor, Tensor]] = field(default=(), kw_only=True)

    @property
    def gate_strength(self) -> Tensor:
        """The saliency if there is one, otherwise the probability; (N, G)."""
        return self.probs if self.saliency is None else self.saliency

    @property
    def peaks(self) -> Tensor:
        """The largest magnitude in each channel's map before masking.

        (N, C) float32, without gradient. A squeeze-excite in front of the
        consumer has scaled the maps.

        Raises:
            FGCError: The record has no activation.
        """
        if self.activation is None:
            raise FGCError(
                f'the record of {self.site.name} has no activation, which '
                'the largest magnitudes are taken from; call '
                'forward_gated(x, keep_activation=True).'
            )
        if self.parts:
            return merge_peaks(self.parts, self.site.channels)
        return channel_scores(self.activation).float()


def keep_ratio(records: Sequence[GateRecord]) -> Tensor:
    """Fraction of gated channels that are open, over sites and images; ()."""
    masks = torch.cat([r.mask.detach().flatten() for r in records])
    return (masks != 0).float().mean()
