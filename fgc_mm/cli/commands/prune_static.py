"""Prunes a trained dense model statically to a given ratio of MACs.

    fgc-mm prune-static CONFIG CHECKPOINT --importance fpgm \\
        --pruning-ratio 0.55 --out DIR

writes DIR/NAME.py (a config), DIR/NAME.pth (the remaining weights) and
DIR/channel_map.json (the remaining channels). fgc-mm train fine-tunes the
network (the config loads the weights), fgc-mm test tests it:

    fgc-mm train DIR/NAME.py
    fgc-mm test DIR/NAME.py DIR/NAME.pth

The folder may be moved. ``--zeroed`` removes only the channels that
``SoftFilterPruningHook`` has set to zero in training; outputs do not change.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import torch
from mmengine.config import Config

from fgc_mm.deploy.compaction.importances import IMPORTANCES
from fgc_mm.deploy.compaction.static_pruning import Pruned, prune_static
from fgc_mm.deploy.compaction.zeroed import prune_zeroed
from fgc_mm.deploy.loading import build_trained, images_of
from fgc_mm.engine.config_file import load_config
from fgc_mm.engine.config_options import ConfigOptions, override
from fgc_mm.errors import FGCError
from fgc_mm.models import build_macs_table
from fgc_mm.reliability.atomic_file import write_atomically

MAP = 'channel_map.json'
HERE = '{{ fileDirname }}'  # mmengine replaces it by the config's folder


def main() -> None:
    """Prune, write, and check the written files."""
    args = parse_args()
    cfg = load_config(args.config)
    override(cfg, args.cfg_options)
    model = build_trained(cfg, args.checkpoint, gated=False)
    images = next(images_of(cfg, model, args.images))
    torch.manual_seed(args.seed)
    if args.zeroed:
        pruned, kind = prune_zeroed(model, images), 'pruned'
    else:
        kind = args.importance
        pruned = prune_static(model, kind, args.pruning_ratio, images)
    name = args.name or f'{kind}_{Path(args.config).stem}'
    path = write(cfg, pruned, Path(args.out), name)
    check(path, pruned, images)
    wanted = '' if args.zeroed else f' (requested: {args.pruning_ratio:.1%})'
    print(
        f'{path}: {pruned.macs:,} of {pruned.dense:,} MACs are left, '
        f'{pruned.pruning_ratio:.1%} pruned{wanted};'
        f' {pruned.sparsity:.1%} of the channels in {pruned.groups} groups'
    )


def parse_args() -> argparse.Namespace:
    """The arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument('config', help='config of the dense model')
    parser.add_argument('checkpoint', help='its trained checkpoint')
    parser.add_argument(
        '--importance', choices=[*IMPORTANCES], default='fpgm',
        help='criterion by which channels are removed (default: fpgm)',
    )  # fmt: skip
    parser.add_argument(
        '--pruning-ratio', type=float, default=0.55,
        help='fraction of the MACs to remove (default: 0.55)',
    )  # fmt: skip
    parser.add_argument(
        '--zeroed', action='store_true',
        help='remove the channels zeroed by SoftFilterPruningHook instead',
    )  # fmt: skip
    parser.add_argument('--out', required=True, help='folder to write into')
    parser.add_argument(
        '--name', help="of the config (default: IMPORTANCE_ and CONFIG's)"
    )
    parser.add_argument('--seed', type=int, default=0, help='for random')
    parser.add_argument(
        '--images', type=int, default=4, help='test images for the check'
    )
    parser.add_argument(
        '--cfg-options', nargs='+', action=ConfigOptions,
        help='as in train.py; they are merged into the written config',
    )  # fmt: skip
    return parser.parse_args()


def write(cfg: Config, pruned: Pruned, folder: Path, name: str) -> Path:
    """Writes the channel map, the weights and then the config."""
    cfg.model.backbone = dict(
        type='fgc_mm.ChannelMapBackbone',
        backbone=cfg.model.backbone,
        channel_map=f'{HERE}/{MAP}',
    )
    cfg.load_from, cfg.resume = f'{HERE}/{name}.pth', False
    weights = io.BytesIO()
    state = pruned.model.state_dict()
    torch.save(dict(state_dict=state, meta={}), weights)
    write_atomically(pruned.channel_map.text().encode(), folder / MAP)
    write_atomically(weights.getvalue(), folder / f'{name}.pth')
    path = folder / f'{name}.py'
    write_atomically(cfg.pretty_text.encode(), path)
    return path


def check(path: Path, pruned: Pruned, images: torch.Tensor) -> None:
    """Builds the model from the files, and compares its outputs."""
    cfg = load_config(str(path))
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
