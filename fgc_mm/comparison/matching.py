"""What asks a method for a pruning ratio, as options of its config."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import ceil
from typing import Any

import torch
from mmengine.config import Config
from mmpretrain.registry import DATASETS

from ..deploy.loading import build_model
from ..errors import FGCError
from ..functional.channel_groups import spread_groups
from ..functional.macs import MACsTable, macs_per_image

# the weight of MACsTargetLoss where it takes the place of an L0Loss
WEIGHT = 100.0
# the shares of open channels of these gates, by their settings
DENSITIES = {'FBSGate': 'density', 'ManiDPGate': 'keep'}
GATE = 'model.backbone.gate'
LOSSES = 'model.gate_losses'


def options_for_ratio(cfg: Config, ratio: float) -> tuple[str, ...]:
    """``--cfg-options`` that ask a config's method for a pruning ratio.

    A MACsTargetLoss gets the ratio; an L0Loss becomes one; an FBSGate or
    ManiDPGate gets the density whose MACs are nearest; the ratio of a
    MaskPredictionLoss has to be planned on the network that training starts
    from (:func:`needs_planning`). A network without gates stays as it is.

    Args:
        cfg: The config.
        ratio: 1 - MACs / dense MACs, in (0, 1).

    Raises:
        FGCError: The method has none of these, or cannot reach the ratio.
    """
    gate = (cfg.model.get('backbone') or {}).get('gate')
    if gate is None:
        return ()
    losses = dict(_losses(cfg))
    if 'MACsTargetLoss' in losses:
        place, loss = losses['MACsTargetLoss']
        return (_set(f'{LOSSES}.{place}', loss, 'pruning_ratio', ratio),)
    if 'L0Loss' in losses:
        return tuple(_in_place_of_l0(*losses['L0Loss'], ratio))
    setting = DENSITIES.get(_kind(gate))
    if setting is not None:
        density = density_for_ratio(_table(cfg), ratio)
        return (_set(GATE, gate, setting, density),)
    if 'MaskPredictionLoss' in losses:
        return ()
    raise FGCError(
        f'{cfg.filename} has no MACsTargetLoss, L0Loss, MaskPredictionLoss, '
        'FBSGate or ManiDPGate that could be asked for a pruning ratio of '
        f'{ratio}; add a MACsTargetLoss to its gate_losses, or leave '
        '--match-macs out.'
    )


def without_own(
    asked: tuple[str, ...], own: tuple[str, ...]
) -> tuple[str, ...]:
    """Options without the ratios that a row sets itself.

    Args:
        asked: What :func:`options_for_ratio` gives.
        own: Options of the row: a ratio or density that it sets is kept.
    """
    keys = {option.partition('=')[0] for option in own}
    ratios = {'pruning_ratio', *DENSITIES.values()}

    def is_own(key: str) -> bool:
        setting = key.removesuffix('.end_value').rpartition('.')[2]
        return key in keys and setting in ratios

    return tuple(o for o in asked if not is_own(o.partition('=')[0]))


def needs_planning(cfg: Config, own: tuple[str, ...]) -> bool:
    """Whether the ratio of a MaskPredictionLoss is to be planned.

    Args:
        cfg: The config.
        own: Options of the row: one that sets the ratio is kept.
    """
    place = dict(_losses(cfg)).get('MaskPredictionLoss')
    if place is None:
        return False
    return not any(o.startswith(f'{LOSSES}.{place[0]}.ratio=') for o in own)


def density_for_ratio(table: MACsTable, ratio: float) -> float:
    """The share of decisions, open at every site, that costs 1 - ratio.

    A site of C channels keeps ceil(density * C) of them; one whose gate
    decides for groups keeps so many of the groups.

    Args:
        table: MACs of the gated network; its gates count.
        ratio: 1 - MACs / dense MACs.

    Raises:
        FGCError: One decision at each site is too much already.
    """
    sizes = table.group_sizes or [None] * len(table.channels)
    decisions = [len(g or range(c)) for c, g in zip(table.channels, sizes)]
    steps = sorted({i / d for d in decisions for i in range(1, d + 1)})

    def pruned(density: float) -> float:
        opened = [_first(count, density) for count in decisions]
        masks = [*map(spread_groups, opened, sizes)]
        return 1 - macs_per_image(table, masks).item() / table.base()

    best = min(steps, key=lambda density: abs(pruned(density) - ratio))
    if pruned(steps[0]) < ratio:
        raise FGCError(
            f'a pruning ratio of {ratio} is out of reach: with one open '
            'channel (or group) at every site it is '
            f'{pruned(steps[0]):.3f}; ask for less.'
        )
    return best


def _first(decisions: int, density: float) -> torch.Tensor:
    # 1e-9: the product of a share and its own denominator may be above it
    count = ceil(density * decisions - 1e-9)
    return (torch.arange(decisions) < count)[None].float()


def _table(cfg: Config) -> MACsTable:
    image = DATASETS.build(cfg.test_dataloader.dataset)[0]['inputs']
    return build_model(cfg).macs_table(tuple(image.shape))


def _losses(cfg: Config) -> Iterator[tuple[str, tuple[int, Any]]]:
    for place, loss in enumerate(cfg.model.get('gate_losses') or ()):
        yield _kind(loss), (place, loss)


def _kind(settings: Mapping[str, Any]) -> str:
    return str(settings['type']).rpartition('.')[2]


def _in_place_of_l0(
    place: int, loss: Mapping[str, Any], ratio: float
) -> Iterator[str]:
    """Turns an L0Loss into a MACsTargetLoss with the same ramp."""
    key = f'{LOSSES}.{place}'
    others = sorted({*loss} - {'type', 'loss_weight', 'name'})
    if others:
        raise FGCError(
            f'{key} is an L0Loss with {", ".join(others)}, which a '
            'MACsTargetLoss in its place does not have; leave it out of the '
            'config, or write the MACsTargetLoss there.'
        )
    yield f'{key}.type=fgc_mm.MACsTargetLoss'
    yield f'{key}.pruning_ratio={ratio}'
    yield _set(key, loss, 'loss_weight', WEIGHT)


def _set(
    key: str, settings: Mapping[str, Any], name: str, value: float
) -> str:
    """The option that sets a number, or where a schedule of it ends."""
    ramp = isinstance(settings.get(name), Mapping)
    # in full: a density that is rounded up would open one channel more
    return f'{key}.{name}{".end_value" if ramp else ""}={value!r}'
