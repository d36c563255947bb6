"""MACs of a config before any training: dense, gates, and what to expect."""
import argparse
import sys
from collections.abc import Iterator
from typing import Any, Optional

import torch
from mmengine.config import Config, DictAction
from mmengine.registry import init_default_scope
from rich.console import Console
from rich.table import Table

from fgc_mm.errors import FGCError
from fgc_mm.functional.macs import MACsTable, expected_macs
from fgc_mm.models import build_macs_table


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file path')
    parser.add_argument(
        '--shape',
        type=int,
        nargs='+',
        help='height and width of the image (one number for both); by '
        "default the training pipeline's crop",
    )
    parser.add_argument(
        '--keep-ratio',
        type=float,
        nargs='+',
        default=[0.75, 0.5, 0.25],
        help='shares of open channels to expect the MACs for',
    )
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, help='as in train.py'
    )
    return parser.parse_args()


def image_shape(cfg: Config, shape: Optional[list[int]]) -> tuple[int, ...]:
    """(3, H, W) from the command line, or from the training pipeline."""
    if shape is not None:
        if len(shape) > 2 or min(shape) < 1:
            raise FGCError(
                f'--shape {" ".join(map(str, shape))} is no height and '
                'width; give one or two positive numbers.'
            )
        return (3, shape[0], shape[-1])
    for crop in _crops(cfg):
        return (3, crop, crop) if isinstance(crop, int) else (3, *crop)
    raise FGCError(
        'the training pipeline of this config has no crop from which to '
        'take the size of the images; give --shape HEIGHT WIDTH.'
    )


def _crops(cfg: Config) -> Iterator[Any]:
    dataset = cfg.get('train_dataloader', {}).get('dataset', {})
    for step in dataset.get('pipeline', []):
        crop = step.get('crop_size')
        if step.type == 'RandomResizedCrop':
            crop = step.get('scale')
        if crop is not None:
            yield crop


def load_model(path: str, options: Optional[dict]) -> tuple[Any, Config]:
    """The config's model, without weights."""
    from mmpretrain.registry import MODELS

    try:
        cfg = Config.fromfile(path)
    except FileNotFoundError:
        raise FGCError(
            f'{path} is not there; give the path of a config file.'
        ) from None
    cfg.merge_from_dict(options or {})
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    return MODELS.build(cfg.model), cfg


def totals(macs: MACsTable, keep_ratios: list[float]) -> Table:
    """Dense, gates and expectations, by both countings."""
    table = Table(title='MACs per image')
    table.add_column('')
    for column in ('MACs', 'of dense', 'fgc-pr', 'of its base'):
        table.add_column(column, justify='right')
    rows = [('dense', macs.dense, macs.base('fgc-pr'))]
    if macs.sites:
        rows.append(('gates', macs.gates, macs.gates))
        rows += [
            (
                f'expected at keep ratio {keep:g}',
                expected_macs(macs, keep),
                expected_macs(macs, keep, 'fgc-pr'),
            )
            for keep in keep_ratios
        ]
    for name, honest, published in rows:
        table.add_row(
            name,
            f'{honest:,.0f}',
            f'{honest / macs.dense:.1%}',
            f'{published:,.0f}',
            f'{published / macs.base("fgc-pr"):.1%}',
        )
    return table


def per_site(macs: MACsTable) -> Table:
    """One row per site: what it governs and what its gate costs."""
    table = Table(title='gate sites')
    table.add_column('site')
    for column in ('channels', 'governs MACs', 'of dense', 'gate MACs'):
        table.add_column(column, justify='right')
    for index, name in enumerate(macs.sites):
        governed = macs.governed(index)
        gate = macs.gate_of(name)
        table.add_row(
            name,
            str(macs.channels[index]),
            f'{governed:,}',
            f'{governed / macs.dense:.1%}',
            f'{gate:,}',
        )
    return table


def main() -> None:
    args = parse_args()
    model, cfg = load_model(args.config, args.cfg_options)
    shape = image_shape(cfg, args.shape)
    macs = build_macs_table(model, shape)
    console = Console()
    console.print(f'{args.config}, image {"x".join(map(str, shape))}')
    if macs.sites:
        console.print(per_site(macs))
    console.print(totals(macs, args.keep_ratio))


if __name__ == '__main__':
    torch.set_grad_enabled(False)
    try:
        main()
    except FGCError as error:
        sys.exit(f'error: {error}')
