"""One coupling step over large banks: time, memory, whole and sharded.

    python benchmarks/bank_scaling.py --figure docs/bank_scaling.png

One coupled site, N images, K neighbours, C channels, D rows. A step is the
search, the contrast, its gradient, and writing both banks. The published
implementation is that of benchmarks/coupling.py, with dense N x D products.
Ours has whole banks in one process, or banks sharded over two processes (each
with half the images and half the rows, over gloo), in float32 or bfloat16.
Extra memory is the increase of a process's peak during a step, beyond its
banks. Each measurement has processes of its own, of which the largest counts.
Every process has one thread, and keeps freed memory as `fgc-mm train` does; on
a busy machine its CPU seconds are more reliable than wall-clock seconds.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter, process_time

import torch
from coupling import (
    EPS,
    TEMPERATURE,
    Block,
    Sizes,
    published_loss,
    reset_peak,
    resident_mib,
)
from torch import distributed as dist

from fgc_mm.cli.arguments import text_parser
from fgc_mm.cli.freed_memory import keep_freed_memory
from fgc_mm.memory import MemoryBank, Shard
from fgc_mm.memory.gather import gather_tables

LIMIT = 512
WAYS = {
    'published float32': ('published', 'float32'),
    'whole float32': ('whole', 'float32'),
    'whole bfloat16': ('whole', 'bfloat16'),
    '2 shards float32': ('sharded', 'float32'),
    '2 shards bfloat16': ('sharded', 'bfloat16'),
}


def make_banks(way: str, dtype: str, sizes: Sizes) -> list[MemoryBank]:
    """The two banks of a site, or this process's part of them."""
    shard = Shard.of_this_rank(sizes.rows) if way == 'sharded' else None
    kind = getattr(torch, dtype)
    return [
        MemoryBank(sizes.rows, sizes.channels, dtype=kind, shard=shard)
        for _ in range(2)
    ]


def step(way: str, block: Block, sizes: Sizes) -> None:
    """Search, contrast, gradient, and both writes."""
    block.logits.grad = None
    if way == 'published':
        loss = published_loss(block, sizes)
    else:
        found = block.features.nearest(
            block.feature, sizes.neighbors, block.index
        )
        positives = torch.cat([block.index[:, None], found], 1)
        loss = block.gates.contrast(
            block.logits, positives, TEMPERATURE, 'log_sum', EPS
        )
    loss.backward()
    tables = [block.index, block.feature, block.logits.detach()]
    if way == 'sharded':
        tables = gather_tables(tables)
    block.features.update(tables[0], tables[1])
    block.gates.update(tables[0], tables[2])


def measure(way: str, dtype: str, sizes: Sizes, repeats: int) -> dict:
    """In a fresh process: seconds of each step, and memory."""
    torch.manual_seed(0)
    banks = make_banks(way, dtype, sizes)
    world = dist.get_world_size() if dist.is_initialized() else 1
    rank = dist.get_rank() if dist.is_initialized() else 0
    own = slice(rank, sizes.images, world)
    shape = (sizes.images, sizes.channels)
    index = torch.randperm(sizes.rows)[: sizes.images]
    feature, logits = torch.randn(shape).relu(), torch.randn(shape)
    block = Block(
        *banks, index[own], feature[own], logits[own].requires_grad_()
    )
    small = Sizes(8, 600, sizes.channels, 5, 1)
    warm = make_banks(way, dtype, small)
    # libraries load what they need
    step(way, Block(*warm, torch.arange(4), block.feature[:4].clone(),
                    torch.randn(4, sizes.channels, requires_grad=True)),
         small)  # fmt: skip
    keep_freed_memory()  # not that of making the banks
    reset_peak()
    before = resident_mib(peak=False)
    step(way, block, sizes)  # untimed: the memory is new
    wall, cpu = [], []
    for _ in range(repeats):
        starts = perf_counter(), process_time()
        step(way, block, sizes)
        wall.append(perf_counter() - starts[0])
        cpu.append(process_time() - starts[1])
    held = sum(b.rows.numel() * b.rows.element_size() for b in banks)
    return dict(
        seconds=median(wall),
        cpu=median(cpu),
        banks=held / 2**20,
        extra=resident_mib(peak=True) - before,
    )


def in_processes(name: str, sizes: Sizes, repeats: int) -> dict:
    """The measurement of a way: the worst of its processes."""
    world = 2 if WAYS[name][0] == 'sharded' else 1
    with tempfile.TemporaryDirectory() as folder:
        children = [
            subprocess.Popen(
                [
                    sys.executable, __file__, '--way', name,
                    '--meet', f'{folder}/meet', '--rank', str(rank),
                    '--world', str(world), '--repeats', str(repeats),
                    '--rows', str(sizes.rows), '--images', str(sizes.images),
                    '--channels', str(sizes.channels),
                    '--neighbors', str(sizes.neighbors),
                ],
                env=dict(os.environ, OMP_NUM_THREADS='1'),
                stdout=subprocess.PIPE,
                text=True,
            )
            for rank in range(world)
        ]  # fmt: skip
        said = [child.communicate()[0] for child in children]
    results = [json.loads(text.splitlines()[-1]) for text in said]
    return {key: max(r[key] for r in results) for key in results[0]}


def child(args: argparse.Namespace, sizes: Sizes) -> None:
    if args.world > 1:
        dist.init_process_group(
            'gloo',
            init_method=f'file://{args.meet}',
            rank=args.rank,
            world_size=args.world,
        )
    way, dtype = WAYS[args.way]
    print(json.dumps(measure(way, dtype, sizes, args.repeats)))
    if args.world > 1:
        dist.destroy_process_group()


def read(path: Path | None) -> dict[int, dict[str, dict]]:
    """The results of earlier calls."""
    if path is None or not path.exists():
        return {}
    found = json.loads(path.read_text())
    return {int(rows): ways for rows, ways in found.items()}


def table(results: dict[int, dict[str, dict]]) -> str:
    """All results, in Markdown."""
    lines = [
        '| D | way | CPU s a step | s a step | banks, MiB | extra, MiB |',
        '| --- | --- | --- | --- | --- | --- |',
    ]
    for rows, ways in sorted(results.items()):
        for name in WAYS:
            found = ways.get(name)
            if found is not None:
                lines.append(
                    f'| {rows:,} | {name} | {found["cpu"]:.2f} | '
                    f'{found["seconds"]:.2f} | {found["banks"]:,.0f} | '
                    f'{found["extra"]:.0f} |'
                )
    return '\n'.join(lines)


def draw(results: dict[int, dict[str, dict]], path: Path) -> None:
    """Time and extra memory over D."""
    # here, since the measured processes need no matplotlib
    from fgc_mm import figure_style

    with figure_style.in_style():
        figure = figure_style.new_figure(figure_style.PAGE_WIDTH, 2.8)
        axes = figure.subplots(1, 2)
        for number, name in enumerate(WAYS):
            rows = [d for d in sorted(results) if name in results[d]]
            style = figure_style.series_style(number)
            for axis, key in zip(axes, ('cpu', 'extra')):
                values = [results[d][name][key] for d in rows]
                axis.plot(rows, values, label=name, **style)
        style = dict(color=figure_style.GREY, linestyle=':')
        axes[1].axhline(LIMIT, label=f'limit, {LIMIT} MiB', **style)
        for axis, title in zip(
            axes, ('CPU seconds a step and process', 'extra memory, MiB')
        ):
            axis.set(xscale='log', yscale='log', xlabel='rows D', title=title)
            axis.grid(True)
        handles = axes[1].get_legend_handles_labels()
        figure.legend(*handles, loc='outside right upper')
        kind = path.suffix[1:] or 'png'
        path.write_bytes(figure_style.figure_bytes(figure, kind))


def parse() -> argparse.Namespace:
    parser = text_parser(__doc__)
    sizes = [50_000, 200_000, 1_281_167]
    parser.add_argument('--rows', type=int, nargs='+', default=sizes)
    parser.add_argument('--images', type=int, default=256, help='N')
    parser.add_argument('--channels', type=int, default=512, help='C')
    parser.add_argument('--neighbors', type=int, default=200, help='K')
    parser.add_argument('--repeats', type=int, default=3)
    parser.add_argument(
        '--published-rows',
        type=int,
        default=1_281_167,
        help='the largest D for the published way (memory)',
    )
    parser.add_argument('--figure', type=Path, help='draws to this file')
    parser.add_argument(
        '--results',
        type=Path,
        help='adds to this file, so that it can be done in pieces',
    )
    parser.add_argument(
        '--ways',
        nargs='+',
        choices=WAYS,
        default=list(WAYS),
        metavar='WAY',
        help=f'which of them: {", ".join(WAYS)}',
    )
    for name in ('--way', '--meet', '--rank', '--world'):
        kind = int if name in ('--rank', '--world') else str
        parser.add_argument(name, type=kind, help=argparse.SUPPRESS)
    return parser.parse_args()


def measure_all(
    args: argparse.Namespace, sizes_of: Callable[[int], Sizes]
) -> dict[int, dict[str, dict]]:
    """The requested measurements, added to earlier results."""
    results = read(args.results)
    for rows in args.rows:
        for name in args.ways:
            if name.startswith('published') and rows > args.published_rows:
                continue
            repeats = args.repeats if rows < 10**6 else min(args.repeats, 2)
            found = in_processes(name, sizes_of(rows), repeats)
            found['load'] = os.getloadavg()[0]
            results.setdefault(rows, {})[name] = found
            print(rows, name, found, flush=True)
            if args.results:
                args.results.write_text(json.dumps(results, indent=1))
    return results


def main() -> None:
    args = parse()

    def sizes_of(rows: int) -> Sizes:
        return Sizes(args.images, rows, args.channels, args.neighbors, 1)

    if args.way:
        child(args, sizes_of(args.rows[0]))
        return
    print(f'{args}, load {os.getloadavg()[0]:.1f}')
    results = measure_all(args, sizes_of)
    print(table(results))
    if args.figure:
        draw(results, args.figure)
    ours = [
        found['extra']
        for ways in results.values()
        for name, found in ways.items()
        if not name.startswith('published')
    ]
    if max(ours) > LIMIT:
        sys.exit(f'error: a step took {max(ours):.0f} MiB beside the banks')


if __name__ == '__main__':
    main()
