"""Removes channels that are never open from a trained gated model."""

import argparse
from pathlib import Path

from mmengine.config import Config
from mmengine.runner import Runner
from rich.console import Console
from rich.table import Table
from torch import nn

from fgc_mm.cli.given_config import drop_distillation, trained_model
from fgc_mm.deploy import (
    Compacted,
    SiteFiring,
    compact,
    firing_statistics,
    images_of,
)
from fgc_mm.deploy.compaction.small_model import config_text, small_config
from fgc_mm.reliability.atomic_file import save_atomically, write_atomically

COMPARED = 8  # images on which the result is compared with the masked model


def main(args: argparse.Namespace) -> None:
    """Count, remove, write; test with ``--test``."""
    cfg, model = trained_model(args)
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


def write(folder: Path, cfg: Config, done: Compacted) -> None:
    """Write config, channel map and checkpoint, each atomically."""
    weights = dict(meta={}, state_dict=done.state_dict)
    save_atomically(weights, folder / 'model.pth')
    text = done.channel_map.text()
    write_atomically(text.encode(), folder / 'channels.json')
    text = config_text(small_config(cfg, done.channel_map))
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
    before = sum(p.numel() for p in model.state_dict().values())
    after = sum(p.numel() for p in done.state_dict.values())
    left = sum(bool(s.gated) for s in done.channel_map.sites.values())
    print(
        f'{before:,} weights before, {after:,} after (statistics of norms '
        f'included); {left} of {len(firing)} gates left; largest '
        f'difference from the masked model {done.difference:.1e} of the '
        'largest feature'
    )


def test(cfg: Config, checkpoint: str, folder: Path) -> None:
    """Accuracy and MACs before and after."""
    small = Config.fromfile(folder / 'config.py')
    found = []
    for name, config, weights in (
        ('masked', cfg.copy(), checkpoint),
        ('compact', small, str(folder / 'model.pth')),
    ):
        drop_distillation(config)
        config.load_from, config.resume = weights, False
        config.work_dir = str(folder / 'test' / name)
        config.experiment_name = f'{folder.name}_{name}'
        found.append(Runner.from_cfg(config).test())
    table = Table(title='on the test set')
    table.add_column('metric')
    for column in ('masked', 'compact'):
        table.add_column(column, justify='right')
    for metric in dict.fromkeys(key for metrics in found for key in metrics):
        table.add_row(metric, *(_number(m.get(metric)) for m in found))
    Console().print(table)


def _number(value: float | None) -> str:
    if value is None:
        return '-'
    return f'{value:,.0f}' if abs(value) >= 1000 else f'{value:.4g}'
