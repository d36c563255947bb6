"""Prunes a trained dense model statically to a given ratio of MACs."""

import argparse
from pathlib import Path

import torch
from mmengine.config import Config

from fgc_mm.cli.given_config import read_config
from fgc_mm.deploy.compaction.importances import IMPORTANCES
from fgc_mm.deploy.compaction.small_model import HERE, config_text
from fgc_mm.deploy.compaction.static_pruning import Pruned, prune_static
from fgc_mm.deploy.compaction.zeroed import prune_zeroed
from fgc_mm.deploy.loading import build_trained, images_of
from fgc_mm.engine.config_file import load_config
from fgc_mm.errors import FGCError, check_choice
from fgc_mm.models import build_macs_table
from fgc_mm.reliability.atomic_file import save_atomically, write_atomically

MAP = 'channel_map.json'  # after the name and _


def main(args: argparse.Namespace) -> None:
    """Prune, write, and check the written files."""
    importance = args.importance
    check_choice(f'--importance {importance!r}', importance, IMPORTANCES)
    cfg = read_config(args)
    model = build_trained(cfg, args.checkpoint, gated=False)
    images = next(images_of(cfg, model, args.images))
    torch.manual_seed(args.seed)
    if args.zeroed:
        pruned, kind = prune_zeroed(model, images), 'pruned'
    else:
        kind = importance
        pruned = prune_static(model, kind, args.pruning_ratio, images)
    name = args.name or f'{kind}_{Path(args.config).stem}'
    path = write(cfg, pruned, Path(args.out), name, images)
    wanted = '' if args.zeroed else f' (requested: {args.pruning_ratio:.1%})'
    print(
        f'{path}: {pruned.macs:,} of {pruned.dense:,} MACs are left, '
        f'{pruned.pruning_ratio:.1%} pruned{wanted};'
        f' {pruned.sparsity:.1%} of the channels in {pruned.groups} groups'
    )


def write(
    cfg: Config, pruned: Pruned, folder: Path, name: str, images: torch.Tensor
) -> Path:
    """Writes channel map, weights and, after a check of these, the config."""
    cfg.model.backbone = dict(
        type='fgc_mm.ChannelMapBackbone',
        backbone=cfg.model.backbone,
        channel_map=f'{HERE}/{name}_{MAP}',
    )
    cfg.load_from, cfg.resume = f'{HERE}/{name}.pth', False
    weights = dict(state_dict=pruned.model.state_dict(), meta={})
    write_atomically(
        pruned.channel_map.text().encode(), folder / f'{name}_{MAP}'
    )
    save_atomically(weights, folder / f'{name}.pth')
    path = folder / f'{name}.py'
    unchecked = folder / f'{name}_unchecked.py'
    write_atomically(config_text(cfg).encode(), unchecked)
    try:
        check(unchecked, path, pruned, images)
        unchecked.replace(path)
    finally:
        unchecked.unlink(missing_ok=True)
    return path


def check(
    unchecked: Path, path: Path, pruned: Pruned, images: torch.Tensor
) -> None:
    """Builds the model from the files, and compares its outputs."""
    cfg = load_config(str(unchecked))
    model = build_trained(cfg, str(path.with_suffix('.pth')), gated=False)
    macs = build_macs_table(model, tuple(images.shape[1:])).dense
    with torch.no_grad():
        same = torch.equal(model(images), pruned.model(images))
    if macs != pruned.macs or not same:
        raise FGCError(
            f'{path} builds another network than the pruned one ({macs:,} '
            f'MACs instead of {pruned.macs:,}): its backbone does not depend '
            'on its config alone, so it cannot be pruned statically.'
        )
