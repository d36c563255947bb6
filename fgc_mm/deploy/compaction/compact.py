"""Static removal of channels that are constant in the firing statistics."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fgc_mm.deploy.changed_masks import changed_masks
from fgc_mm.deploy.compaction.channel_removal import ChannelRemoval
from fgc_mm.deploy.compaction.equivalence import (
    differing_gates,
    fixed_decisions,
)
from fgc_mm.deploy.compaction.removed_channels import short_message
from fgc_mm.deploy.compaction.small_model import (
    any_gate,
    shrunk_state,
    small_settings,
)
from fgc_mm.deploy.comparing import (
    TOLERANCE,
    check_precision,
    largest_gap,
)
from fgc_mm.deploy.firing import SiteFiring, gated_backbone
from fgc_mm.errors import FGCError
from fgc_mm.models import ChannelMap, CompactBackbone, GatedBackbone
from fgc_mm.registry import MODELS
from fgc_mm.sites import GateSite
from fgc_mm.sites.eval_mode import eval_mode


@dataclass(frozen=True, eq=False)
class Compacted:
    """Result of a compaction.

    Attributes:
        channel_map: What remains, and what is gated.
        backbone: The small network, with its weights.
        state_dict: State dict of the whole small model.
        refused: Sites that keep channels which are never open, and why.
        difference: Largest difference between the features of the small
            network and of the masked one with the same fixed decisions,
            relative to the largest feature.
    """

    channel_map: ChannelMap
    backbone: nn.Module
    state_dict: dict[str, Tensor]
    refused: Mapping[str, str]
    difference: float


@torch.no_grad()
def compact(
    model: nn.Module,
    firing: Sequence[SiteFiring],
    settings: Mapping[str, Any],
    images: Tensor,
    tolerance: float = 0.0,
) -> Compacted:
    """Remove what is constant from a gated model.

    Channels that are never open are removed, with their rows and columns in
    every layer. For channels that are always open the output of the gate is
    removed; a site without any decision left loses its gate. A channel that
    is never open but cannot be removed (before a residual sum, or from one
    group only) stays and is always closed.

    The affected layers are those of the sites, which were found by probing.
    The result is checked on ``images``: its features must equal those of the
    masked model with the same fixed decisions. A site that fails keeps its
    channels. (The tests compare with torch-pruning's dependency graph, which
    gives the same networks where its search ends; for ShuffleNetV2 it does
    not.)

    Args:
        model: A classifier with a :class:`GatedBackbone`; not changed.
        firing: Its statistics.
        settings: Config of its backbone, to build the small one from.
        images: (N, 3, H, W) for checking the result.
        tolerance: Fraction of the images that may open a channel which counts
            as never open, or close one which counts as always open.

    Raises:
        FGCError: No gates, statistics of another model, a tolerance outside
            [0, 0.5), an already compact model, settings with a module, a
            model of half precision, or a backbone that fails even with every
            site left out.
    """
    backbone = gated_backbone(model)
    _check(backbone, firing, tolerance)
    _check_settings(settings)
    check_precision(backbone)
    with eval_mode(model):
        removal = ChannelRemoval(backbone, firing, tolerance)
        return _compacted(_Trial(model, settings, removal, images))


def _compacted(trial: '_Trial') -> Compacted:
    refused = dict(trial.channel_removal.refused)
    while True:
        channel_map = trial.channel_map()
        try:
            small, state = trial.build(channel_map)
        except Exception as error:  # depends on the backbone's code
            refused |= trial.failing_sites(_failure(error))
            continue
        failed, gap = trial.compare(small, channel_map)
        if not failed:
            whole = {k: v for k, v in refused.items() if trial.keeps(k)}
            return Compacted(channel_map, small, state, whole, gap)
        refused |= failed


class _Trial:
    """Builds the small network, and finds sites that must keep channels."""

    def __init__(
        self,
        model: nn.Module,
        settings: Mapping[str, Any],
        channel_removal: ChannelRemoval,
        images: Tensor,
    ) -> None:
        self._model = model
        self._backbone = gated_backbone(model)
        self._prefix = '' if model is self._backbone else 'backbone.'
        self._settings = settings
        self.channel_removal = channel_removal
        self._images = images
        self._whole: set[str] = set()  # the gate decides jointly
        self._unshrunk: set[str] = set()

    def channel_map(self) -> ChannelMap:
        """What remains, without the sites that have failed so far."""
        return self.channel_removal.channel_map(self._whole, self._unshrunk)

    def keeps(self, name: str) -> bool:
        """Whether a site keeps channels that are never open."""
        first = self.channel_removal.refused
        return name in {*first, *self._whole, *self._unshrunk}

    def build(
        self, channel_map: ChannelMap
    ) -> tuple[nn.Module, dict[str, Tensor]]:
        """The small backbone, and the small model's state dict."""
        small = MODELS.build(
            small_settings(self._settings, channel_map, any_gate(channel_map))
        )
        own = next(self._backbone.parameters())
        small.to(own.device).eval()
        if own.dtype != torch.float32:  # float64 buffers stay what they are
            small.to(own.dtype)
        state = shrunk_state(self._model, small, channel_map, self._prefix)
        small.load_state_dict(
            {key: state[f'{self._prefix}{key}'] for key in small.state_dict()}
        )
        return small, state

    def compare(
        self, small: nn.Module, channel_map: ChannelMap
    ) -> tuple[dict[str, str], float]:
        """Sites that failed and why, and the largest difference.

        The gates are compared separately, in float64 if they can, and their
        masks are then set: a decision that rounding changes is no failure.
        """
        with (
            differing_gates(self._backbone, small, channel_map) as joint,
            fixed_decisions(self._backbone, channel_map),
        ):
            wanted, records = self._backbone.forward_gated(self._images)
        if joint:
            why = 'its gate does not decide channel by channel'
            return self._keep_whole_sites(dict.fromkeys(joint, why)), 0.0
        masks = {record.site.name: record.mask for record in records}

        def kept_masks(site: GateSite, _: Tensor) -> Tensor:
            return masks[site.name][:, channel_map.sites[site.name].kept]

        try:
            with changed_masks(small, kept_masks):
                got = small(self._images)
        except Exception as error:  # as above
            return self.failing_sites(_failure(error)), 0.0
        gap = largest_gap(wanted, got)
        if not gap <= TOLERANCE:
            return self.failing_sites('the features differ'), gap
        return {}, gap

    def _keep_whole_sites(self, names: Mapping[str, str]) -> dict[str, str]:
        """Keep the channels of these sites, or those that their gates read.

        Returns:
            The sites that now keep channels, and why.
        """
        failed = {x: why for x, why in names.items() if x not in self._whole}
        again = [x for x in names if x in self._whole]
        self._whole |= set(failed)
        for name in again:
            read = self._shrunk_sites_before(name)
            if not read:
                raise FGCError(
                    f'the gate of {name} decides differently when it is built '
                    'again and loaded, so its state dict does not hold all of '
                    'its state; it cannot be compacted.'
                )
            failed |= dict.fromkeys(read, f'the gate of {name} needs them')
            self._unshrunk |= set(read)
            self._whole.discard(name)  # perhaps these were the only reason
        return failed

    def _shrunk_sites_before(self, name: str) -> list[str]:
        """Sites with removed channels that the gate of a site reads."""
        (site,) = [x for x in self._backbone.sites if x.name == name]
        return [
            other.name
            for other in self._backbone.sites
            if other.name in self._shrinking()
            and any(c.path == site.producer for c in other.consumers)
        ]

    def _shrinking(self) -> list[str]:
        """Sites that lose channels."""
        return [
            name
            for name, channels in self.channel_removal.removed.items()
            if channels and name not in {*self._unshrunk, *self._whole}
        ]

    def failing_sites(self, why: str) -> dict[str, str]:
        """The sites that fail even when only they are removed."""
        names = self._shrinking()
        failed = {n: why for n in names if not self._can_shrink_alone(n)}
        failed = failed or dict.fromkeys(names, why)
        if not failed:
            raise FGCError(
                f'{type(self._backbone.backbone).__name__} gives other '
                f'features when it is built again ({why}); it cannot be '
                'compacted.'
            )
        self._unshrunk |= set(failed)
        return failed

    def _can_shrink_alone(self, name: str) -> bool:
        channels = self.channel_removal.removed[name]
        removed = self.channel_removal.of_layers({name: channels})
        return not removed.problem(
            self._backbone.backbone, self._images, own_statistics=False
        )


def _failure(error: Exception) -> str:
    if isinstance(error, FGCError):  # about the network as a whole
        return 'its code fails'
    return f'its code fails ({short_message(error)})'


def _check(
    backbone: GatedBackbone, firing: Sequence[SiteFiring], tolerance: float
) -> None:
    if not 0 <= tolerance < 0.5:
        raise FGCError(
            f'tolerance={tolerance} is not a fraction of images that may '
            'deviate from the majority; give a number from 0 to below 0.5.'
        )
    if isinstance(backbone, CompactBackbone):
        raise FGCError(
            'the model is compact already; compact the model that it was '
            'made from, with the other tolerance or images.'
        )
    known = [(s.name, s.channels) for s in backbone.sites]
    if known != [(f.site, len(f.rate)) for f in firing]:
        raise FGCError(
            f'the firing statistics are of {len(firing)} other sites than '
            f"this model's {len(known)}; collect them with this model."
        )


def _check_settings(settings: Any) -> None:
    """Refuse a module, which building the small network would change."""
    if isinstance(settings, nn.Module):
        raise FGCError(
            f'the settings contain a module ({type(settings).__name__}), but '
            'the small network is built from a config; give one: '
            'backbone=dict(type=...).'
        )
    if isinstance(settings, Mapping):
        settings = settings.values()
    elif not isinstance(settings, (list, tuple)):
        return
    for part in settings:
        _check_settings(part)
