"""The config options that set the pruning ratio of a method."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from mmengine.config import Config
from mmpretrain.registry import DATASETS

from fgc_mm.type_name import type_name

from ..deploy.loading import build_model
from ..errors import FGCError
from ..functional.channel_groups import GroupSizes, spread_groups
from ..functional.macs import MACsTable, macs_per_image
from ..functional.topk_mask import num_kept_channels

# the weight of a MACsTargetLoss that replaces an L0Loss
WEIGHT = 100.0
# the setting of these gates for the fraction of open channels
DENSITIES = {'FBSGate': 'density', 'ManiDPGate': 'keep'}
GATE = 'model.backbone.gate'
LOSSES = 'model.gate_losses'


def options_for_ratio(cfg: Config, ratio: float) -> tuple[str, ...]:
    """``--cfg-options`` that set the pruning ratio of a config's method.

    The ratio of a MACsTargetLoss is set; an L0Loss is replaced by a
    MACsTargetLoss; the density of an FBSGate or ManiDPGate is set to the one
    whose MACs are nearest; the ratio of a MaskPredictionLoss has to be
    planned on the network that training starts from (:func:`needs_planning`).
    A network without gates, or with gates that are always open, needs no
    option. The ratio is 1 - MACs / dense MACs, in (0, 1).

    Raises:
        FGCError: The config has none of these, or cannot reach the ratio.
    """
    gate = (cfg.model.get('backbone') or {}).get('gate')
    if gate is None or type_name(gate) == 'OpenGate':
        return ()
    losses = dict(_losses(cfg))
    if 'MACsTargetLoss' in losses:
        index, loss = losses['MACsTargetLoss']
        return (_set(f'{LOSSES}.{index}', loss, 'pruning_ratio', ratio),)
    if 'L0Loss' in losses:
        return tuple(_replace_l0(*losses['L0Loss'], ratio))
    setting = DENSITIES.get(type_name(gate))
    if setting is not None:
        density = density_for_ratio(_table(cfg), ratio)
        return (_set(GATE, gate, setting, density),)
    if 'MaskPredictionLoss' in losses:
        return ()
    raise FGCError(
        f'{cfg.filename} has no MACsTargetLoss, L0Loss, MaskPredictionLoss, '
        f'FBSGate or ManiDPGate, so a pruning ratio of {ratio} cannot be set; '
        'add a MACsTargetLoss to its gate_losses, or leave --match-macs out.'
    )


def drop_overridden(
    options: tuple[str, ...], own: tuple[str, ...]
) -> tuple[str, ...]:
    """The options without the ratios that a row sets itself.

    Args:
        options: As returned by :func:`options_for_ratio`.
        own: Options of the row.
    """
    keys = {option.partition('=')[0] for option in own}
    ratios = {'pruning_ratio', *DENSITIES.values()}

    def is_own(key: str) -> bool:
        setting = key.removesuffix('.end_value').rpartition('.')[2]
        return key in keys and setting in ratios

    return tuple(o for o in options if not is_own(o.partition('=')[0]))


def needs_planning(cfg: Config, own: tuple[str, ...]) -> bool:
    """Whether the ratio of a MaskPredictionLoss has to be planned.

    Not if one of the row's own options sets it.
    """
    found = dict(_losses(cfg)).get('MaskPredictionLoss')
    if found is None:
        return False
    return not any(o.startswith(f'{LOSSES}.{found[0]}.ratio=') for o in own)


def density_for_ratio(table: MACsTable, ratio: float) -> float:
    """The fraction of open decisions at every site that costs 1 - ratio.

    A site of C channels keeps ceil(density * C) of them; a gate that decides
    for groups keeps that fraction of its groups. Of all densities that keep
    the same numbers of channels, the middle one is returned: a schedule that
    falls to the largest one would close the last channel of each site only in
    its last epoch.

    Raises:
        FGCError: The MACs with one open decision at each site exceed this.
    """
    decisions = {count for count, _ in _decisions(table)}
    steps = sorted({i / d for d in decisions for i in range(1, d + 1)})

    def pruned(density: float) -> float:
        return 1 - macs_of_density(table, density) / table.base()

    best = min(steps, key=lambda density: abs(pruned(density) - ratio))
    if pruned(steps[0]) < ratio:
        raise FGCError(
            f'a pruning ratio of {ratio} is out of reach: with one open '
            'channel (or group) at every site it is '
            f'{pruned(steps[0]):.3f}; ask for less.'
        )
    below = max((step for step in steps if step < best), default=0.0)
    return (below + best) / 2


def macs_of_density(
    table: MACsTable, density: float, counting: str = 'honest'
) -> float:
    """MACs per image if every site keeps ceil(density * C) channels open.

    With groups, that fraction of each site's groups: the first ones, so of
    groups of unequal sizes not the smaller last one.

    Args:
        table: The network's layers.
        density: Fraction of open decisions, in (0, 1].
        counting: As in :func:`fgc_mm.functional.macs.macs_per_image`.

    Raises:
        FGCError: A density outside (0, 1].
    """
    if not 0 < density <= 1:
        raise FGCError(
            f'a density of {density} is not a fraction of open channels; '
            'give a number above 0 and up to 1.'
        )
    masks = []
    for count, sizes in _decisions(table):
        opened = torch.arange(count) < num_kept_channels(density, count)
        masks.append(spread_groups(opened[None].float(), sizes))
    return macs_per_image(table, masks, counting).item()


def _decisions(table: MACsTable) -> Iterator[tuple[int, GroupSizes]]:
    """The number of decisions of every site, and their sizes."""
    sizes = table.group_sizes or [None] * len(table.channels)
    for channels, groups in zip(table.channels, sizes):
        yield len(groups or range(channels)), groups


def _table(cfg: Config) -> MACsTable:
    image = DATASETS.build(cfg.test_dataloader.dataset)[0]['inputs']
    return build_model(cfg).macs_table(tuple(image.shape))


def _losses(cfg: Config) -> Iterator[tuple[str, tuple[int, Any]]]:
    for index, loss in enumerate(cfg.model.get('gate_losses') or ()):
        yield type_name(loss), (index, loss)


def _replace_l0(
    index: int, loss: Mapping[str, Any], ratio: float
) -> Iterator[str]:
    """Replaces an L0Loss by a MACsTargetLoss with the same schedule."""
    key = f'{LOSSES}.{index}'
    others = sorted({*loss} - {'type', 'loss_weight', 'name'})
    if others:
        raise FGCError(
            f'{key} is an L0Loss with {", ".join(others)}, which the '
            'MACsTargetLoss that replaces it does not have; leave it out of '
            'the config, or use a MACsTargetLoss there.'
        )
    yield f'{key}.type=fgc_mm.MACsTargetLoss'
    yield f'{key}.pruning_ratio={ratio}'
    yield _set(key, loss, 'loss_weight', WEIGHT)


def _set(
    key: str, settings: Mapping[str, Any], name: str, value: float
) -> str:
    """The option that sets a number, or the end value of its schedule."""
    scheduled = isinstance(settings.get(name), Mapping)
    # all digits: a density that is rounded up would open one channel more
    return f'{key}.{name}{".end_value" if scheduled else ""}={value!r}'
