"""What feature-gate coupling adds to a training step, published and ours.

    python benchmarks/coupling.py

Published implementation: a dense N x D product and its top K for the
neighbours; a dense N x D product, a softmax and autograd for the contrast.
Ours: chunked neighbours and the fused log-sum-exp. Both run in one process,
interleaved; the peak memory of each is measured in a process of its own. On a
busy machine CPU seconds are more reliable than wall-clock seconds. Freed
memory is kept for the next step, as `fgc-mm train` does on a CPU;
--default-allocator uses glibc's defaults. With --device cuda everything is on
the GPU, and wall-clock time and GPU memory are measured.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import perf_counter, process_time

import torch
from torch import Tensor

# the checkout's own package, installed or not; also for those that import this
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fgc_mm.cli.arguments import text_parser
from fgc_mm.cli.freed_memory import keep_freed_memory
from fgc_mm.functional import nearest_neighbors, neighbor_contrast
from fgc_mm.memory import MemoryBank

TEMPERATURE, EPS = 0.07, 1e-7


@dataclass(frozen=True)
class Sizes:
    """N images, D rows, C channels, K neighbours, coupled blocks."""

    images: int
    rows: int
    channels: int
    neighbors: int
    blocks: int


@dataclass
class Block:
    """One coupled block: its two banks and a batch of its outputs."""

    features: MemoryBank
    gates: MemoryBank
    index: Tensor
    feature: Tensor
    logits: Tensor


def make_block(sizes: Sizes, seed: int, device: str = 'cpu') -> Block:
    generator = torch.Generator().manual_seed(seed)
    shape = (sizes.images, sizes.channels)
    order = torch.randperm(sizes.rows, generator=generator)
    feature = torch.randn(shape, generator=generator).relu()
    logits = torch.randn(shape, generator=generator)
    banks = (
        MemoryBank(
            sizes.rows, sizes.channels, init='unit', generator=generator
        ).to(device)
        for _ in range(2)
    )
    index = order[: sizes.images].to(device)
    logits = logits.to(device).requires_grad_()
    return Block(*banks, index, feature.to(device), logits)


def published_loss(block: Block, sizes: Sizes) -> Tensor:
    """Neighbours and contrast as in the published code."""
    with torch.no_grad():
        near = block.feature @ block.features.rows.T
        near.scatter_(1, block.index[:, None], -torch.inf)
        found = near.topk(sizes.neighbors, 1).indices
    positives = torch.cat([block.index[:, None], found], 1)
    scores = block.logits @ block.gates.rows.T / TEMPERATURE
    share = scores.softmax(1).gather(1, positives).sum(1)
    return -(share + EPS).log().mean()


def our_loss(block: Block, sizes: Sizes) -> Tensor:
    found = nearest_neighbors(
        block.feature, block.features.rows, sizes.neighbors, block.index
    )
    positives = torch.cat([block.index[:, None], found], 1)
    return neighbor_contrast(
        block.logits, block.gates.rows, positives, TEMPERATURE, eps=EPS
    )


WAYS = {'published': published_loss, 'ours': our_loss}


def couple(blocks: list[Block], sizes: Sizes, way: str) -> float:
    """The part of a step that is coupling: losses, gradient, bank updates."""
    loss = sum(WAYS[way](block, sizes) for block in blocks)
    loss.backward()
    for block in blocks:
        block.logits.grad = None
        block.features.update(block.index, block.feature)
        block.gates.update(block.index, block.logits.detach())
    return float(loss.detach())


@dataclass
class Seconds:
    """Seconds of every repeat: wall-clock, and CPU time of all threads."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def ratio(self, other: 'Seconds', kind: str = 'wall') -> float:
        """Median over the pairs, so that a drift of the machine cancels."""
        pairs = zip(getattr(self, kind), getattr(other, kind), strict=True)
        return median(mine / its for mine, its in pairs)


def wait_for(device: str) -> None:
    """Return when the device has finished all queued work."""
    if torch.device(device).type == 'cuda':
        torch.cuda.synchronize(device)


def interleave(
    steps: dict[str, Callable[[], object]],
    repeats: int,
    device: str = 'cpu',
) -> dict[str, Seconds]:
    """Time every step in turn, ``repeats`` times, after one warm-up each."""
    seconds = {name: Seconds() for name in steps}
    for repeat in range(repeats + 1):
        for name, step in steps.items():
            wait_for(device)
            starts = perf_counter(), process_time()
            step()
            wait_for(device)
            if repeat:
                seconds[name].wall.append(perf_counter() - starts[0])
                seconds[name].cpu.append(process_time() - starts[1])
    return seconds


def resident_mib(peak: bool) -> float:
    """Resident memory now, or its peak since reset_peak (Linux)."""
    # Not getrusage: its ru_maxrss starts at the parent process's size.
    name = 'VmHWM:' if peak else 'VmRSS:'
    lines = Path('/proc/self/status').read_text().splitlines()
    (line,) = [line for line in lines if line.startswith(name)]
    return int(line.split()[1]) / 1024


def device_peak_mib(sizes: Sizes, way: str, device: str) -> float:
    """The increase of a GPU's peak memory during two steps."""
    blocks = [make_block(sizes, seed, device) for seed in range(sizes.blocks)]
    couple(blocks, sizes, way)
    wait_for(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    couple(blocks, sizes, way)
    wait_for(device)
    return (torch.cuda.max_memory_allocated(device) - before) / 2**20


def reset_peak() -> None:
    Path('/proc/self/clear_refs').write_text('5')


def print_peak(sizes: Sizes, way: str, keep: bool) -> None:
    """In a fresh process: the increase of the peak during two steps."""
    small = Sizes(8, 600, sizes.channels, 5, 1)
    couple([make_block(small, 0)], small, way)
    blocks = [make_block(sizes, seed) for seed in range(sizes.blocks)]
    if keep:  # not the memory of making the banks
        keep_freed_memory()
    reset_peak()
    before = resident_mib(peak=False)
    for _ in range(2):
        couple(blocks, sizes, way)
    print(resident_mib(peak=True) - before)


def measure_peak(
    sizes: Sizes, way: str, device: str, default_allocator: bool = False
) -> float:
    if device != 'cpu':
        return device_peak_mib(sizes, way, device)
    options = [f'--{name}={value}' for name, value in vars(sizes).items()]
    if default_allocator:
        options.append('--default-allocator')
    command = [sys.executable, __file__, *options, '--peak', way]
    return float(subprocess.check_output(command, text=True))


def report_coupling(
    sizes: Sizes,
    repeats: int,
    device: str = 'cpu',
    default_allocator: bool = False,
) -> None:
    """Print time and memory of both ways, and their ratio."""
    load = os.getloadavg()[0]
    blocks = [make_block(sizes, seed, device) for seed in range(sizes.blocks)]
    steps = {way: (lambda way=way: couple(blocks, sizes, way)) for way in WAYS}
    seconds = interleave(steps, repeats, device)
    print(
        f'coupling on {device}, {sizes}, {torch.get_num_threads()} threads, '
        f'load before the run {load:.1f} (other work spoils the ratio)'
    )
    for way, values in seconds.items():
        peak = measure_peak(sizes, way, device, default_allocator)
        print(
            f'  {way:9s} {1e3 * median(values.wall):7.1f} ms a step '
            f'({1e3 * min(values.wall):.1f} to {1e3 * max(values.wall):.1f}, '
            f'{repeats} repeats), CPU {1e3 * median(values.cpu):7.1f} ms, '
            f'peak extra memory {peak:6.1f} MiB'
        )
    ours, published = seconds['ours'], seconds['published']
    print(
        f'  ours / published = {ours.ratio(published):.2f} of the wall, '
        f'{ours.ratio(published, "cpu"):.2f} of the CPU seconds '
        '(medians of the pairs)'
    )


def parse() -> argparse.Namespace:
    parser = text_parser(__doc__)
    parser.add_argument('--images', type=int, default=256, help='N')
    parser.add_argument('--rows', type=int, default=50_000, help='D')
    parser.add_argument('--channels', type=int, default=64, help='C')
    parser.add_argument('--neighbors', type=int, default=200, help='K')
    parser.add_argument('--blocks', type=int, default=2)
    parser.add_argument('--repeats', type=int, default=11)
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--default-allocator', action='store_true')
    parser.add_argument('--peak', choices=WAYS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    for name in ('images', 'rows', 'channels', 'blocks', 'repeats'):
        if getattr(args, name) < 1:
            parser.error(f'--{name} {getattr(args, name)} must be at least 1')
    if not 1 <= args.neighbors < args.rows:
        parser.error(
            f'--neighbors {args.neighbors} must be at least 1 and less than '
            f'the {args.rows} --rows'
        )
    return args


def main() -> None:
    args = parse()
    sizes = Sizes(
        args.images, args.rows, args.channels, args.neighbors, args.blocks
    )
    keep = args.device == 'cpu' and not args.default_allocator
    if args.peak:
        print_peak(sizes, args.peak, keep)
        return
    if keep:
        keep_freed_memory()
    report_coupling(sizes, args.repeats, args.device, args.default_allocator)


if __name__ == '__main__':
    main()
