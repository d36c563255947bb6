"""MACs of a config before training: dense, of gates, and expected."""

import argparse
from collections.abc import Callable
from functools import partial

from mmengine.config import Config
from rich.console import Console
from rich.table import Table
from torch import nn

from fgc_mm.cli.given_config import read_config
from fgc_mm.cli.upstream_errors import upstream_sentence
from fgc_mm.comparison.ratio_options import macs_of_density
from fgc_mm.deploy.loading import build_model
from fgc_mm.engine.image_size import pipeline_of, pipeline_size
from fgc_mm.errors import FGCError
from fgc_mm.functional.macs import MACsTable, expected_macs
from fgc_mm.models import build_macs_table
from fgc_mm.models.counting import gate_macs
from fgc_mm.type_name import type_name

CONVS = nn.Conv1d, nn.Conv2d, nn.Conv3d


def image_size(cfg: Config, shape: list[int] | None) -> tuple[int, int]:
    """(H, W) from the command line, or from the training pipeline."""
    if shape is not None:
        if len(shape) > 2 or min(shape) < 1:
            raise FGCError(
                f'--shape {" ".join(map(str, shape))} is not a height and '
                'width; give one or two positive numbers.'
            )
        return shape[0], shape[-1]
    loader = cfg.get('train_dataloader') or {}
    size = pipeline_size(pipeline_of(loader.get('dataset') or {}))
    if size is not None:
        return size
    raise FGCError(
        'the training pipeline of this config has no crop or Resize that '
        'sets the size of the images; give --shape HEIGHT WIDTH.'
    )


def image_channels(cfg: Config, model: nn.Module) -> list[int]:
    """Possible numbers of image channels, the most likely first.

    These are ``in_channels`` of the (innermost) backbone's config, the input
    channels of the network's first conv, and 3.
    """
    named: list[int | None] = []
    settings = cfg.model.get('backbone')
    while isinstance(settings, dict):
        named.insert(0, settings.get('in_channels'))
        settings = settings.get('backbone')
    first = [m.in_channels for m in model.modules() if isinstance(m, CONVS)]
    candidates = [*named, *first[:1], 3]
    return list(dict.fromkeys(n for n in candidates if isinstance(n, int)))


def count(
    cfg: Config, model: nn.Module, size: tuple[int, int]
) -> tuple[tuple[int, ...], MACsTable]:
    """The first image shape that the network accepts, and its MACs.

    Raises:
        FGCError: The network accepts none.
    """
    shapes = [(n, *size) for n in image_channels(cfg, model)]
    failures = []
    for shape in shapes:
        try:
            return shape, build_macs_table(model, shape)
        except FGCError:
            raise
        except Exception as error:  # the backbone's code may raise anything
            known = upstream_sentence(error)
            if known:
                raise FGCError(known) from error
            failures.append(str(error).strip() or type(error).__name__)
    raise FGCError(
        'the network does not run on an image of '
        f'{"x".join(map(str, shapes[0]))} ({failures[0].splitlines()[-1]}); '
        'give the height and width that it accepts with --shape.'
    )


def macs_of_keep_ratio(cfg: Config) -> Callable[..., float]:
    """How the MACs of a keep ratio are counted for a config's gate.

    FBS keeps a whole number of channels at every site; other gates keep a
    fraction on average.
    """
    gate = (cfg.model.get('backbone') or {}).get('gate')
    return macs_of_density if type_name(gate) == 'FBSGate' else expected_macs


def totals(
    macs: MACsTable,
    keep_ratios: list[float],
    of_keep_ratio: Callable[..., float] = expected_macs,
) -> Table:
    """MACs of the dense network, of gates, and expected, by both countings.

    Percentages are relative to the network before compaction. Operations
    outside a layer's forward (attention, functional calls) have a separate
    row, since gates do not reduce them.
    """
    table = Table(title='MACs per image, dense and expected')
    table.add_column('')
    for column in ('MACs', 'of dense', 'fgc-pr', 'of its base'):
        table.add_column(column, justify='right')
    rows: dict[str, Callable[[str], float]] = {}  # of a counting
    if macs.base() != macs.dense:
        rows['before compaction'] = macs.base
    rows['dense'] = macs.full
    if macs.outside_layers():
        rows['outside layers, always dense'] = macs.outside_layers
    if macs.sites:
        rows['gates'] = lambda _: macs.gates
        for keep in keep_ratios:
            rows[f'keep ratio {keep:g}'] = partial(of_keep_ratio, macs, keep)
    for name, counted in rows.items():
        cells = [name]
        for counting in ('honest', 'fgc-pr'):
            found = counted(counting)
            cells += [f'{found:,.0f}', f'{found / macs.base(counting):.1%}']
        table.add_row(*cells)
    return table


def per_site(macs: MACsTable) -> Table:
    """One row per site: MACs of the layers it reduces, and of its gate."""
    table = Table(title='MACs of the sites')
    table.add_column('site')
    for column in ('channels', 'reducible MACs', 'of dense', 'gate MACs'):
        table.add_column(column, justify='right')
    for index, name in enumerate(macs.sites):
        reducible = macs.site_macs(index)
        gate = gate_macs(macs, name)
        table.add_row(
            name,
            str(macs.channels[index]),
            f'{reducible:,}',
            f'{reducible / macs.dense:.1%}',
            f'{gate:,}',
        )
    return table


def main(args: argparse.Namespace) -> None:
    """Count, and print."""
    cfg = read_config(args)
    size = image_size(cfg, args.shape)
    shape, macs = count(cfg, build_model(cfg), size)
    summary = totals(macs, args.keep_ratio, macs_of_keep_ratio(cfg))
    console = Console()
    print(f'{args.config}, image {"x".join(map(str, shape))}', flush=True)
    if macs.sites:
        console.print(per_site(macs))
    console.print(summary)
