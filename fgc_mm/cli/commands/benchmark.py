"""From MACs to milliseconds: what a trained gated model saves on a clock.

    fgc-mm benchmark CONFIG CHECKPOINT --out DIR

Runs real images (the config's test set) through the dense network, the masked
one, the statically compacted one, the dynamic one, and both; interleaved, with
the model's own gates, which vary from image to image. Ratios are against the
best dense network at hand: eager, folded norms, channels last, compiled, our
kernel without gates, ONNX Runtime. 'static' is the dense network with as many
channels as the gates open on average, the ceiling of all. DIR gets
benchmark.json, benchmark.png and benchmark.svg.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from fgc_mm.cli.benchmark_figure import draw_benchmark
from fgc_mm.deploy import PlainForward, build_trained, images_of
from fgc_mm.deploy.timing.clock import Times, interleaved_times
from fgc_mm.deploy.timing.step_times import grouped, step_times
from fgc_mm.deploy.timing.theory import (
    dense_macs,
    format_time_ratio,
    mask_repeat_rate,
    masks_of,
    site_macs_ratios,
)
from fgc_mm.deploy.timing.variants import BenchmarkVariant, BenchmarkVariants
from fgc_mm.engine.config_file import load_config
from fgc_mm.engine.config_options import ConfigOptions, override
from fgc_mm.errors import FGCError
from fgc_mm.figure_style import FORMATS
from fgc_mm.functional import macs_per_image
from fgc_mm.reliability.atomic_file import write_atomically
from fgc_mm.runtime.cpu import cpu_name
from fgc_mm.runtime.errors import LibraryError
from fgc_mm.runtime.library import builds

CONSOLE = Console(width=120)
REPORTED = ('executed', 'why', 'dynamic_ms', 'dense_ms', 'plain_ms')
# the median over all that the steps take: Python, and caches that others
# have filled meanwhile
CALLS = 'calls, cold caches'


def main() -> None:
    """Build, time, print, write."""
    args = parse_args()
    cfg = load_config(args.config)
    override(cfg, args.cfg_options)
    model = build_trained(cfg, args.checkpoint)
    images = load(cfg, model, args.images, 'test', args.size)
    try:
        others = load(cfg, model, args.calibration, 'train', args.size)
    except (FGCError, OSError):
        others = None
    if len(images) < args.batch:
        raise FGCError(
            f'--batch {args.batch} is more than the {len(images)} images that '
            'there are; give a smaller batch, or more --images.'
        )
    folder = Path(args.out)
    folder.mkdir(parents=True, exist_ok=True)
    settings = cfg.model.backbone.to_dict()
    runs = [
        measure(model, settings, images, others, folder, threads, args)
        for threads in args.threads
    ]
    report = dict(
        config=Path(args.config).name,
        image=list(images.shape[1:]),
        batch=args.batch,
        images=len(images),
        machine=cpu_name(),
        build=_build_name(),
        torch=torch.__version__,
        runs=runs,
    )
    text = json.dumps(report, indent=1) + '\n'
    write_atomically(text.encode(), folder / 'benchmark.json')
    for kind in FORMATS:
        write_atomically(
            draw_benchmark(report, kind), folder / f'benchmark.{kind}'
        )
    print(f'written: {folder}/benchmark.json, .png and .svg')


def parse_args() -> argparse.Namespace:
    """The arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument('config', help='config of a gated model')
    parser.add_argument('checkpoint', help='its checkpoint')
    parser.add_argument('--out', required=True, help='folder to write to')
    parser.add_argument('--images', type=int, default=50)
    parser.add_argument(
        '--calibration', type=int, default=128,
        help='images of the training set on which compaction counts (128)',
    )  # fmt: skip
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--batch', type=int, default=1)
    parser.add_argument(
        '--threads', type=int, nargs='+',
        default=sorted({1, torch.get_num_threads()}),
    )  # fmt: skip
    parser.add_argument(
        '--size', type=int, nargs='+', help='of the images; as they are'
    )
    parser.add_argument(
        '--no-compile', action='store_true', help='leave torch.compile out'
    )
    parser.add_argument('--cfg-options', nargs='+', action=ConfigOptions)
    args = parser.parse_args()
    for name in ('rounds', 'batch', 'threads', 'size'):
        given = getattr(args, name)
        numbers = given if isinstance(given, list) else [given]
        if given is not None and min(numbers) < 1:
            raise FGCError(
                f'--{name} {min(numbers)} is no positive number; give one.'
            )
    return args


def load(
    cfg: Config,
    model: nn.Module,
    count: int,
    split: str,
    size: list[int] | None,
) -> Tensor:
    """Real images, resized if asked."""
    images = torch.cat(list(images_of(cfg, model, count, split)))
    if size is None:
        return images
    return nn.functional.interpolate(
        images, (size[0], size[-1]), mode='bilinear'
    )


def _build_name() -> str:
    """Of the runtime's code that this CPU runs; ``'none'`` without one."""
    try:
        return builds()[0]
    except LibraryError:
        return 'none'


def measure(
    model: nn.Module,
    settings: dict[str, Any],
    images: Tensor,
    others: Tensor | None,
    folder: Path,
    threads: int,
    args: argparse.Namespace,
) -> dict[str, Any]:
    """All rows with so many threads."""
    torch.set_num_threads(threads)
    rows = BenchmarkVariants(
        model, settings, images, others, folder, not args.no_compile
    ).all()
    batches = [b for b in images.split(args.batch) if len(b) == args.batch]
    if args.batch > 1:
        refuse_single(rows)
    runs = {row.name: row.run for row in rows if row.run is not None}
    times = interleaved_times(runs, batches, args.rounds)
    promised = promises(model, rows, images)
    best = min(
        (
            row.name
            for row in rows
            if row.kind == 'dense' and row.run is not None
        ),
        key=lambda name: times[name].median,
    )
    eager = times['dense, eager'].median
    entries = []
    for row in rows:
        entry = dict(name=row.name, kind=row.kind, why_not=row.why_not)
        if row.run is not None:
            taken = times[row.name]
            theory = promised[row.name]
            clock = times[best].median / taken.median
            entry |= dict(
                ms=taken.median, ms_low=taken.low, ms_high=taken.high,
                count=taken.count, theory=theory, clock=clock,
                clock_over_eager=eager / taken.median,
                noise=clock > theory and row.name != best,
            )  # fmt: skip
        entries.append(entry)
    run = dict(
        threads=threads, best_dense=best, rows=entries,
        sites=site_rows(model, rows, images), notes=notes(rows),
        profile=profile(rows, images, times),
        masks_seen_before=mask_repeat_rate(masks_of(model, images.split(16))),
    )  # fmt: skip
    show(run)
    return run


def refuse_single(rows: list[BenchmarkVariant]) -> None:
    """The gathered ONNX takes images one by one."""
    for row in rows:
        if row.name.startswith('gathered') and row.run is not None:
            row.run, row.why_not = None, 'takes images one by one'


def promises(
    model: nn.Module, rows: list[BenchmarkVariant], images: Tensor
) -> dict[str, float]:
    """Dense MACs over the MACs that each row computes."""
    shape = tuple(images.shape[1:])
    table = model.macs_table(shape)
    masks = masks_of(model, images.split(16))
    open_macs = float(macs_per_image(table, masks).mean())
    left = dict(
        dense=table.dense,
        masked=table.dense,
        dynamic=open_macs,
        both=open_macs,
        compact=open_macs,
        static=table.dense,
    )
    for row in rows:
        if row.name == 'compact, eager' and row.model is not None:
            small = row.model.macs_table(shape)
            left['compact'] = small.dense + small.gates
        if row.name == 'static, eager':
            left['static'] = dense_macs(PlainForward(row.model), shape)
    return {row.name: table.dense / left[row.kind] for row in rows}


def site_rows(
    model: nn.Module, rows: list[BenchmarkVariant], images: Tensor
) -> list[dict[str, Any]]:
    """Theory and clock of every site of the dynamic network."""
    report = next(
        (row.model.dynamic_report()['sites'] for row in rows
         if row.name == 'dynamic' and row.model is not None),
        {},
    )  # fmt: skip
    table = model.macs_table(tuple(images.shape[1:]))
    masks = masks_of(model, images.split(16))
    result = []
    for index, theory in enumerate(site_macs_ratios(table, masks)):
        name = table.sites[index]
        said = report.get(name, {})
        clock = None
        if said.get('dynamic_ms') and said.get('plain_ms'):
            ways = dict(dynamic='dynamic_ms', dense='dense_ms')
            clock = said['plain_ms'] / said[ways[said['executed']]]
        result.append(
            dict(
                site=name, channels=table.channels[index],
                keep_ratio=float((masks[index] != 0).double().mean()),
                theory=theory, clock=clock, **{
                    key: said.get(key)
                    for key in REPORTED
                },
            )
        )  # fmt: skip
    return result


def profile(
    rows: list[BenchmarkVariant], images: Tensor, times: dict[str, Times]
) -> dict[str, Any]:
    """Where the dynamic network's time goes: groups of steps, and steps."""
    model = next((r.model for r in rows if r.name == 'dynamic'), None)
    steps = [] if model is None else step_times(model, images[:8])
    if not steps:
        return {}
    groups = grouped(steps)
    rest = times['dynamic'].median - sum(groups.values())
    return dict(
        groups=groups | {CALLS: rest},
        steps=[vars(step) for step in steps],
    )


def notes(rows: list[BenchmarkVariant]) -> list[str]:
    """What the dynamic network says of itself."""
    return [
        note
        for row in rows
        if row.name == 'dynamic' and row.model is not None
        for note in row.model.dynamic_report().get('notes', [])
    ]


def show(run: dict[str, Any]) -> None:
    """The tables of one number of threads."""
    table = Table(
        title=f'{run["threads"]} threads; best dense: {run["best_dense"]}'
    )
    for column in ('network', 'ms (quartiles)', 'theory (MACs)',
                   'clock, over best dense', 'clock / theory',
                   'over eager'):  # fmt: skip
        table.add_column(column)
    for row in run['rows']:
        if 'ms' not in row:
            table.add_row(row['name'], f'not there: {row["why_not"]}')
            continue
        said = format_time_ratio(row['clock'], row['theory'])
        if row['name'] == run['best_dense']:
            said = '1'
        table.add_row(
            row['name'],
            f'{row["ms"]:.2f} ({row["ms_low"]:.2f} to {row["ms_high"]:.2f})',
            f'{row["theory"]:.2f} x',
            said,
            f'{row["clock"] / row["theory"]:.2f}',
            f'{row["clock_over_eager"]:.2f} x',
        )
    CONSOLE.print(table)
    show_sites(run['sites'])
    if run['profile']:
        show_profile(run['profile'])
    print(
        f'{run["masks_seen_before"]:.1%} of the masks were those of an '
        'earlier image at the same site'
    )
    for note in run['notes']:
        print(note)


def show_profile(profile: dict[str, Any]) -> None:
    """Groups of steps, and the longest steps."""
    groups = profile['groups']
    whole = sum(groups.values())
    table = Table(title='where the time of the dynamic network goes')
    for column in ('steps', 'ms', 'share'):
        table.add_column(column)
    for name, ms in groups.items():
        table.add_row(name, f'{ms:.3f}', f'{ms / whole:.0%}')
    CONSOLE.print(table)
    longest = sorted(profile['steps'], key=lambda step: -step['ms'])[:5]
    told = ', '.join(f'{step["name"]} {step["ms"]:.3f}' for step in longest)
    print(f'longest steps, in ms: {told}')


def show_sites(sites: list[dict[str, Any]]) -> None:
    """Theory and clock of every site."""
    table = Table(title='sites of the dynamic network, at its calibration')
    for column in ('site', 'open', 'theory', 'clock', 'clock / theory', 'how',
                   'why'):  # fmt: skip
        table.add_column(column)
    for site in sites:
        clock, theory = site['clock'], site['theory']
        table.add_row(
            site['site'],
            f'{site["keep_ratio"]:.2f}',
            f'{theory:.2f} x',
            '-' if clock is None else format_time_ratio(clock, theory),
            '-' if clock is None else f'{clock / theory:.2f}',
            site['executed'] or '-',
            site['why'] or '-',
        )
    CONSOLE.print(table)
