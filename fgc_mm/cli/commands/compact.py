"""Removes channels that are never open from a trained gated model.

    fgc-mm export compact CONFIG CHECKPOINT --out DIR

Counts on calibration images (of the training set, with the test pipeline) how
often every channel is open. Channels that are never open are removed from the
network, for channels that are always open the output of the gate is removed,
and a site where all channels are one or the other loses its gate. Written to
DIR: config.py (for fgc-mm test and fgc-mm train), channels.json (the
remaining channels) and model.pth. The folder may be moved.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.runner import Runner
from rich.console import Console
from rich.table import Table
from torch import nn

from fgc_mm.deploy import (
    Compacted,
    SiteFiring,
    build_trained,
    compact,
    firing_statistics,
    images_of,
)
from fgc_mm.deploy.compaction.small_config import small_config
from fgc_mm.engine.config_file import load_config
from fgc_mm.engine.config_options import ConfigOptions, override
from fgc_mm.errors import FGCError
from fgc_mm.reliability.atomic_file import write_atomically

COMPARED = 8  # images on which the result is compared with the masked model


def main() -> None:
    """Count, remove, write; test with ``--test``."""
    args = parse_args()
    cfg = load_config(args.config)
    override(cfg, args.cfg_options)
    model = build_trained(cfg, args.checkpoint)
    images = list(images_of(cfg, model, args.images, args.split))
    firing = firing_statistics(model, images)
    settings = cfg.model.backbone.to_dict()
    compared = images[0][:COMPARED]
    done = compact(model, firing, settings, compared, args.tolerance)
    folder = Path(args.out)
    write(folder, cfg, done)
    show(model, firing, done)
    print(f'written: {folder}/config.py, channels.json and model.pth')
    if args.test:
        test(cfg, args.checkpoint, folder)


def parse_args() -> argparse.Namespace:
    """The arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument('config', help='config of a gated model')
    parser.add_argument('checkpoint', help='checkpoint of its training')
    parser.add_argument('--out', required=True, help='folder to write to')
    parser.add_argument(
        '--images', type=int, default=512, help='for calibration (512)'
    )
    parser.add_argument(
        '--split', choices=('train', 'test'), default='train',
        help='data set of these images (train)',
    )  # fmt: skip
    parser.add_argument(
        '--tolerance', type=float, default=0.0,
        help='fraction of these images for which a channel that counts as\n'
        'never (always) open may be open (closed); default: 0',
    )  # fmt: skip
    parser.add_argument(
        '--test', action='store_true',
        help="print the accuracy on the config's test set before and after",
    )  # fmt: skip
    parser.add_argument('--cfg-options', nargs='+', action=ConfigOptions)
    args = parser.parse_args()
    if Path(args.out).exists() and not Path(args.out).is_dir():
        raise FGCError(
            f'--out {args.out} is a file, but three files are written into '
            'a folder; give another name.'
        )
    return args


def write(folder: Path, cfg: Config, done: Compacted) -> None:
    """Write config, channel map and checkpoint, each atomically."""
    with io.BytesIO() as stream:
        torch.save(dict(meta={}, state_dict=done.state_dict), stream)
        write_atomically(stream.getvalue(), folder / 'model.pth')
    text = done.channel_map.text()
    write_atomically(text.encode(), folder / 'channels.json')
    text = small_config(cfg, done.channel_map).pretty_text
    write_atomically(text.encode(), folder / 'config.py')


def show(model: nn.Module, firing: list[SiteFiring], done: Compacted) -> None:
    """One row per site, and the sizes."""
    table = Table(title=f'sites, from {firing[0].images} images')
    for column in ('site', 'channels', 'removed', 'ungated', 'closed',
                   'gated', 'why not removed'):  # fmt: skip
        table.add_column(column, justify='left' if 'i' in column else 'right')
    for stats in firing:
        entry = done.channel_map.sites[stats.site]
        total, kept = len(stats.rate), len(entry.kept)
        gated, closed = len(entry.gated), len(entry.closed)
        table.add_row(
            stats.site,
            *map(str, (total, total - kept, kept - gated - closed, closed,
                       gated)),
            done.refused.get(stats.site, ''),
        )  # fmt: skip
    Console().print(table)
    before = sum(p.numel() for p in model.parameters())
    after = sum(p.numel() for p in done.state_dict.values())
    left = sum(bool(s.gated) for s in done.channel_map.sites.values())
    print(
        f'{before:,} parameters before, {after:,} weights after (statistics '
        f'of norms included); {left} of {len(firing)} gates left; largest '
        f'difference to the masked model {done.difference:.1e} of the '
        'largest feature'
    )


def test(cfg: Config, checkpoint: str, folder: Path) -> None:
    """Accuracy and MACs before and after."""
    small = Config.fromfile(folder / 'config.py')
    rows = []
    for name, config, weights in (
        ('masked', cfg.copy(), checkpoint),
        ('compact', small, str(folder / 'model.pth')),
    ):
        config.model.pop('distillation', None)  # for training only
        config.load_from, config.resume = weights, False
        config.work_dir = str(folder / 'test' / name)
        config.experiment_name = f'{folder.name}_{name}'
        rows.append((name, Runner.from_cfg(config).test()))
    table = Table(title='on the test set')
    names = list(dict.fromkeys(key for _, row in rows for key in row))
    for column in ('', *names):
        table.add_column(column, justify='right')
    for name, row in rows:
        table.add_row(name, *(f'{row[k]:,.4g}' if k in row else '-'
                              for k in names))  # fmt: skip
    Console(width=160).print(table)
