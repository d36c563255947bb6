"""MACs and parameters of a trained run's network."""

from collections.abc import Sequence
from dataclasses import dataclass

from mmengine.config import Config
from mmpretrain.registry import DATASETS
from torch import nn

from fgc_mm.type_name import type_name

from ..deploy.compaction.zeroed import prune_zeroed
from ..deploy.loading import build_model, build_trained, images_of
from ..engine import SoftFilterPruningHook
from ..engine.config_file import load_config
from ..engine.config_options import override, read_options
from ..functional.macs import COUNTINGS, MACsTable
from ..models import build_macs_table

PARTS = 'backbone', 'neck', 'head'
LOADERS = 'train_dataloader', 'val_dataloader', 'test_dataloader'


@dataclass(frozen=True)
class Cost:
    """MACs and parameters of a network with every gate open.

    Attributes:
        macs: MACs of every product, at the size of a test image.
        parameters: Number of parameters of backbone (with gates), neck and
            head, without a teacher that is used in training only.
        images: Numbers of images of training, validation and test set.
    """

    macs: MACsTable
    parameters: int
    images: tuple[int, ...]


def cost_of(path: str, options: Sequence[str] = ()) -> Cost:
    """Builds a config's network without loading weights, and counts.

    Raises:
        FGCError: The config has no model.
    """
    cfg = load_config(path)
    override(cfg, read_options(options))
    return _cost(cfg, build_model(cfg))


def zeroed_cost_of(path: str, checkpoint: str) -> Cost | None:
    """The cost without the filters that training has set to zero.

    Returns:
        None if the config has no ``SoftFilterPruningHook``.

    Raises:
        FGCError: The checkpoint has no zeroed filter.
    """
    cfg = load_config(path)
    hooks = map(type_name, cfg.get('custom_hooks') or ())
    if SoftFilterPruningHook.__name__ not in hooks:
        return None
    model = build_trained(cfg, checkpoint, gated=False)
    images = next(images_of(cfg, model, 2))
    return _cost(cfg, prune_zeroed(model, images).model)


def _cost(cfg: Config, model: nn.Module) -> Cost:
    sets = [
        DATASETS.build(cfg[name].dataset) for name in LOADERS if cfg.get(name)
    ]
    shape = tuple(sets[-1][0]['inputs'].shape)
    parts = (getattr(model, part, None) for part in PARTS)
    modules = [part for part in parts if isinstance(part, nn.Module)]
    parameters = sum(
        weight.numel() for module in modules for weight in module.parameters()
    )
    macs = build_macs_table(model, shape)
    return Cost(macs, parameters, tuple(map(len, sets)))


def static_metrics(own: MACsTable, dense: MACsTable) -> dict[str, float]:
    """The metrics of ``DynamicMACs`` for a network without gates.

    Args:
        own: MACs of the network, all of which runs for every image.
        dense: MACs of the network from which it was pruned.
    """
    found = {'macs/mean': float(own.dense), 'macs/dense': float(dense.base())}
    for counting in COUNTINGS:
        ratio = 100 * (1 - own.full(counting) / dense.base(counting))
        # as DynamicMACs names it
        suffix = '' if counting == 'honest' else f'_{counting}'
        found[f'macs/pruning_ratio{suffix.replace("-", "_")}'] = ratio
    return found
