"""Static pruning to a given ratio of MACs, a baseline of dynamic pruning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor

from mmpretrain.models.classifiers import ImageClassifier
from torch import Tensor

from fgc_mm.deploy.compaction.importances import IMPORTANCES, scores_of
from fgc_mm.deploy.compaction.removed_channels import RemovedChannels, shrunk
from fgc_mm.deploy.compaction.static_groups import (
    ChannelGroup,
    channels_to_remove,
    find_groups,
)
from fgc_mm.deploy.comparing import check_precision
from fgc_mm.errors import FGCError, check_choice
from fgc_mm.models import ChannelMap, GatedBackbone, build_macs_table
from fgc_mm.sites.copying import copy_network
from fgc_mm.sites.eval_mode import eval_mode

TOLERANCE = 0.01
STEPS = 20


@dataclass(frozen=True)
class Pruned:
    """A statically pruned network.

    Attributes:
        channel_map: What remains.
        model: The small classifier, with the remaining weights.
        macs: MACs of the small classifier.
        dense: MACs of the whole one.
        sparsity: Fraction of the channels of each group that was removed.
        groups: Number of channel groups that can be pruned.
    """

    channel_map: ChannelMap
    model: ImageClassifier
    macs: int
    dense: int
    sparsity: float
    groups: int

    @property
    def pruning_ratio(self) -> float:
        """Fraction of the MACs that was removed."""
        return 1 - self.macs / self.dense

    @classmethod
    def of(
        cls,
        model: ImageClassifier,
        removed: RemovedChannels,
        images: Tensor,
        sparsity: float,
        groups: int,
    ) -> Pruned:
        """A copy of a model without some channels, and its MACs."""
        channel_map = removed.channel_map(model.backbone)
        small = copy_network(model)
        channel_map.shrink(small.backbone)
        macs, dense = (
            build_macs_table(network, tuple(images.shape[1:])).dense
            for network in (small, model)
        )
        return cls(channel_map, small, macs, dense, sparsity, groups)


def prune_static(
    model: ImageClassifier,
    importance: str,
    pruning_ratio: float,
    images: Tensor,
) -> Pruned:
    """Remove the least important channels for all images.

    Every group loses the same fraction of its channels, those with the
    lowest torch-pruning importance; where a grouped conv or a group norm
    reads them, each of its groups loses equally many. Bisection finds the
    fraction that gives the requested MACs.

    Args:
        model: A trained classifier with a plain backbone; not changed.
        importance: ``'fpgm'`` (geometric median, He et al., CVPR 2019),
            ``'group_norm'`` (L2 norm over the group), ``'bn_scale'``
            (network slimming, Liu et al., ICCV 2017) or ``'random'``
            (torch's global generator).
        pruning_ratio: Fraction of the MACs (convs and classifier) to remove,
            in (0, 1).
        images: (N, 3, H, W) for counting and for checking the result.

    Raises:
        FGCError: An unknown importance, a model with gates or of half
            precision, images of another dtype, or none, an invalid or
            unreachable ratio, or nothing that can be removed.
    """
    _check(model, importance, pruning_ratio)
    with eval_mode(model):
        groups = find_groups(model.backbone, images)
        scores = [scores_of(importance, group) for group in groups]
        search = _Search(model, groups, scores, tuple(images.shape[1:]))
        sparsity, removed = search.run(pruning_ratio)
        problem = removed.problem(model.backbone, images)
        if problem:
            raise FGCError(
                f'{type(model.backbone).__name__} without the pruned channels '
                'has other features than the whole network in which no layer '
                f'reads them ({problem}); it cannot be pruned statically.'
            )
        return Pruned.of(model, removed, images, sparsity, len(groups))


class _Search:
    """MACs as a function of the fraction of channels removed."""

    def __init__(
        self,
        model: ImageClassifier,
        groups: Sequence[ChannelGroup],
        scores: Sequence[Tensor],
        shape: tuple[int, ...],
    ) -> None:
        self._model = model
        self._groups = groups
        self._orders = [
            [_order(score, block) for block in group.blocks]
            for score, group in zip(scores, groups, strict=True)
        ]
        self._shape = shape
        self._dense = build_macs_table(model, shape).dense
        self._ratios: dict[tuple[int, ...], float] = {}

    def _counts(self, sparsity: float, rotation: int) -> tuple[int, ...]:
        """How many channels are removed from each block of every group.

        Each group rounds with an offset of its own, so that the MACs change
        in small steps; ``rotation`` rotates the offsets among the groups.
        """
        counts, groups = [], len(self._groups)
        for number, group in enumerate(self._groups):
            place = ((number + rotation) % groups + 0.5) / groups
            width = len(group.blocks[0])  # all blocks are equal
            count = floor(sparsity * width + place)
            counts.append(min(count, width - group.least))
        return tuple(counts)

    def _without(self, counts: Sequence[int]) -> RemovedChannels:
        return channels_to_remove(
            (group, [c for order in orders for c in order[:count]])
            for group, orders, count in zip(
                self._groups, self._orders, counts, strict=True
            )
        )

    def _ratio(self, sparsity: float, rotation: int = 0) -> float:
        """Fraction of the MACs that is removed."""
        counts = self._counts(sparsity, rotation)
        if counts not in self._ratios:
            backbone = self._model.backbone
            channel_map = self._without(counts).channel_map(backbone)
            with shrunk(backbone, channel_map):
                left = build_macs_table(self._model, self._shape).dense
            self._ratios[counts] = 1 - left / self._dense
        return self._ratios[counts]

    def run(self, wanted: float) -> tuple[float, RemovedChannels]:
        """The fraction of channels, and the channels to remove.

        If the steps are too coarse for the tolerance, other rotations of the
        rounding offsets are tried.
        """
        most = self._ratio(1.0)
        if wanted > most + TOLERANCE:
            raise FGCError(
                f'pruning_ratio={wanted} is out of reach: without every '
                f'channel that can be removed {most:.1%} of the MACs are '
                'pruned; ask for less.'
            )
        for rotation in range(len(self._groups)):
            sparsity = self._bisect(wanted, rotation)
            reached = self._ratio(sparsity, rotation)
            if reached > 0 and abs(reached - wanted) <= TOLERANCE:
                counts = self._counts(sparsity, rotation)
                return sparsity, self._without(counts)
        found = (ratio for ratio in self._ratios.values() if ratio > 0)
        closest = min(found, key=lambda ratio: abs(ratio - wanted))
        raise FGCError(
            f'pruning_ratio={wanted} cannot be met within a point: the '
            f'network has few channels, and the closest ratio is '
            f'{closest:.3g}; ask for that.'
        )

    def _bisect(self, wanted: float, rotation: int) -> float:
        """The end of the last interval whose ratio is closer."""
        low, high = 0.0, 1.0
        for _ in range(STEPS):
            middle = (low + high) / 2
            if self._ratio(middle, rotation) < wanted:
                low = middle
            else:
                high = middle
        return min(
            (low, high), key=lambda s: abs(self._ratio(s, rotation) - wanted)
        )


def _order(scores: Tensor, block: Sequence[int]) -> list[int]:
    """The channels of a block, the least important first."""
    order = scores[list(block)].argsort(stable=True)
    return [block[index] for index in order.tolist()]


def _check(model: ImageClassifier, importance: str, ratio: float) -> None:
    check_choice(f'importance={importance!r}', importance, IMPORTANCES)
    if not 0 < ratio < 1:
        raise FGCError(
            f'pruning_ratio={ratio} is not a fraction of the MACs that can '
            'be removed; give a number between 0 and 1, such as 0.55.'
        )
    if isinstance(model.backbone, GatedBackbone):
        raise FGCError(
            'the model has gates, which choose channels per image; static '
            'pruning needs a plain one: give the dense config.'
        )
    check_precision(model.backbone)
