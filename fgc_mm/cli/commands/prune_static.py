"""Prunes a trained dense model to a given ratio of MACs, for all images.

    fgc-mm prune-static CONFIG CHECKPOINT --importance fpgm \\
        --pruning-ratio 0.55 --out DIR

writes DIR/NAME.py (a config), DIR/NAME.pth (the weights that remain) and
DIR/channel_map.json (which channels those are). fgc-mm train fine-tunes
(the config starts from the weights), fgc-mm test tests:

    fgc-mm train DIR/NAME.py
    fgc-mm test DIR/NAME.py DIR/NAME.pth

The folder can be moved as a whole. ``--zeroed`` removes the channels that
``SoftFilterPruningHook`` has set to zero while it trained, and no others; the
outputs stay.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from mmengine.config import Config

from fgc_mm.cli.arguments import config_parser, read_config
from fgc_mm.deploy.compaction.importances import IMPORTANCES
from fgc_mm.deploy.compaction.static_pruning import Pruned, prune_static
from fgc_mm.deploy.compaction.zeroed import prune_zeroed
from fgc_mm.deploy.loading import build_trained, images_of
from fgc_mm.engine.config_file import load_config
from fgc_mm.errors import FGCError
from fgc_mm.models import build_macs_table
from fgc_mm.reliability.atomic_file import save_atomically, write_atomically

MAP = 'channel_map.json'
HERE = '{{ fileDirname }}'  # mmengine's word for the config's own folder


def main() -> None:
    """Prune, write, and try what was written."""
    args = parse_args()
    cfg = read_config(args)
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
    asked = '' if args.zeroed else f' (asked: {args.pruning_ratio:.1%})'
    print(
        f'{path}: {pruned.macs:,} of {pruned.dense:,} MACs are left, '
        f'{pruned.pruning_ratio:.1%} pruned{asked};'
        f' {pruned.sparsity:.1%} of the channels in {pruned.groups} groups'
    )


def parse_args() -> argparse.Namespace:
    """The arguments."""
    parser = config_parser(__doc__, 'config of the dense model')
    parser.add_argument('checkpoint', help='its trained checkpoint')
    parser.add_argument(
        '--importance', choices=[*IMPORTANCES], default='fpgm',
        help='which channels go first (default: fpgm)',
    )  # fmt: skip
    parser.add_argument(
        '--pruning-ratio', type=float, default=0.55,
        help='share of the MACs to remove (default: 0.55)',
    )  # fmt: skip
    parser.add_argument(
        '--zeroed', action='store_true',
        help='remove what SoftFilterPruningHook has zeroed, instead',
    )  # fmt: skip
    parser.add_argument('--out', required=True, help='folder to write into')
    parser.add_argument(
        '--name', help="of the config (default: IMPORTANCE_ and CONFIG's)"
    )
    parser.add_argument('--seed', type=int, default=0, help='for random')
    parser.add_argument(
        '--images', type=int, default=4, help='test images to try it on'
    )
    return parser.parse_args()


def write(cfg: Config, pruned: Pruned, folder: Path, name: str) -> Path:
    """Writes map, weights and, at last, the config."""
    cfg.model.backbone = dict(
        type='fgc_mm.ChannelMapBackbone',
        backbone=cfg.model.backbone,
        channel_map=f'{HERE}/{MAP}',
    )
    cfg.load_from, cfg.resume = f'{HERE}/{name}.pth', False
    weights = dict(state_dict=pruned.model.state_dict(), meta={})
    write_atomically(pruned.channel_map.text().encode(), folder / MAP)
    save_atomically(weights, folder / f'{name}.pth')
    path = folder / f'{name}.py'
    write_atomically(cfg.pretty_text.encode(), path)
    return path


def check(path: Path, pruned: Pruned, images: torch.Tensor) -> None:
    """Builds the model from the files, and compares."""
    cfg = load_config(str(path))
    model = build_trained(cfg, str(path.with_suffix('.pth')), gated=False)
    macs = build_macs_table(model, tuple(images.shape[1:])).dense
    with torch.no_grad():
        same = torch.equal(model(images), pruned.model(images))
    if macs != pruned.macs or not same:
        raise FGCError(
            f'{path} builds another network than was pruned ({macs:,} MACs, '
            f'not {pruned.macs:,}): its backbone depends on more than its '
            'config; it cannot be pruned statically.'
        )
