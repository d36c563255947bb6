"""MACs and parameters of a trained run's network."""

from __future__ import annotations

from dataclasses import dataclass

from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmpretrain.registry import DATASETS, MODELS
from torch import nn

from ..engine import command_line
from ..errors import FGCError
from ..functional.macs import COUNTINGS, MACsTable
from ..models import build_macs_table

PARTS = 'backbone', 'neck', 'head'


@dataclass(frozen=True)
class Cost:
    """What a network costs with every gate open.

    Attributes:
        macs: Every conv and linear layer, at the size of a test image.
        parameters: Of backbone (gates included), neck and head; a teacher
            that only training needs does not count.
    """

    macs: MACsTable
    parameters: int


def cost_of(path: str) -> Cost:
    """Builds a config's network, without weights, and counts.

    Raises:
        FGCError: The config has no model or no test images.
    """
    cfg = command_line.load_config(path)
    scope = cfg.get('default_scope', 'mmpretrain')
    with DefaultScope.overwrite_default_scope(scope):
        model = _build(cfg)
        shape = _image_shape(cfg)
    parts = (getattr(model, part, None) for part in PARTS)
    numbers = [
        parameter.numel()
        for part in parts
        if isinstance(part, nn.Module)
        for parameter in part.parameters()
    ]
    return Cost(build_macs_table(model, shape), sum(numbers))


def static_metrics(own: MACsTable, dense: MACsTable) -> dict[str, float]:
    """What ``DynamicMACs`` would report of a network without gates.

    Args:
        own: Of the network, which runs as a whole for every image.
        dense: Of the network that it was made from.
    """
    found = {'macs/mean': float(own.dense), 'macs/dense': float(dense.dense)}
    for counting in COUNTINGS:
        ratio = 100 * (1 - own.base(counting) / dense.base(counting))
        found[ratio_name(counting)] = ratio
    return found


def ratio_name(counting: str) -> str:
    """The metric in which ``DynamicMACs`` reports a counting's ratio."""
    suffix = '' if counting == 'honest' else f'_{counting.replace("-", "_")}'
    return f'macs/pruning_ratio{suffix}'


def _build(cfg: Config) -> nn.Module:
    if 'model' not in cfg:
        raise FGCError(
            f'{cfg.filename} has no model; give a config that tools/train.py '
            'can run.'
        )
    cfg.model.pop('init_cfg', None)  # weights change no MACs
    return MODELS.build(cfg.model)


def _image_shape(cfg: Config) -> tuple[int, ...]:
    """(3, H, W) of the first test image."""
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    return tuple(dataset[0]['inputs'].shape)
