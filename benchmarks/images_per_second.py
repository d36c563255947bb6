"""Images per second of training on a CPU, and what makes it faster.

    python benchmarks/images_per_second.py [--compile] [--processes 2]

Reads a folder of JPEG files (made for this, 32 x 32) file by file, as the
configs *_folder.py do, and batch by batch from memory, as *_folder16*.py do.
Then it runs whole training steps (preprocessing, forward, losses, backward,
optimizer) of one config on random images: unchanged, with channels_last, in
bfloat16, and with --compile with the compiled backbone (which takes minutes).
The steps are interleaved in this process, with one thread, and freed memory is
kept as `fgc-mm train` does; --processes K also compares K such processes with
one process of K threads. Rates are per wall-clock second and per second of CPU
time, which other work on the machine disturbs less.
"""

import argparse
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

import cv2
import numpy as np
import torch
from coupling import interleave
from mmengine.runner import Runner
from training import build_training, random_batch, read_config

from fgc_mm.cli.arguments import text_parser
from fgc_mm.cli.freed_memory import keep_freed_memory
from fgc_mm.engine.bfloat16_wrapper import multiplies_bfloat16

READERS = {
    'read file by file': 'dense_resnet20_folder',
    'held in memory': 'dense_resnet20_folder16',
}
STEPS = {
    'as it is': dict(channels_last=False, bfloat16=False),
    'channels_last': dict(channels_last=True, bfloat16=False),
    'channels_last, bfloat16': dict(channels_last=True, bfloat16=True),
}
COMPILED = 'channels_last, compiled'


@contextmanager
def image_folder(images: int) -> Iterator[Path]:
    """A folder of JPEG files of two classes, for as long as it is needed."""
    generator = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(images):
            file = Path(folder, 'train', str(number % 2), f'{number}.jpg')
            file.parent.mkdir(parents=True, exist_ok=True)
            pixels = generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            cv2.imwrite(str(file), pixels)
        yield Path(folder)


@dataclass(frozen=True)
class Rate:
    """Images per second.

    Attributes:
        wall: Per wall-clock second.
        cpu: Per second of CPU time, of all threads together.
    """

    wall: float
    cpu: float


def reading_rate(config: str, folder: Path, repeats: int) -> Rate:
    """Images that one process reads, decodes and augments."""
    loader = read_config(config).train_dataloader
    inner = loader.dataset.get('dataset', loader.dataset)
    inner.data_root = str(folder)
    loader.update(num_workers=0, persistent_workers=False)
    batches = Runner.build_dataloader(loader)
    for _ in batches:  # reads images that are held in memory
        pass
    steps = {config: lambda: [*batches]}
    return rates(steps, len(batches.dataset), repeats)[config]


def training_rates(
    config: str, images: int, repeats: int, ways: dict[str, dict[str, bool]]
) -> dict[str, Rate]:
    """The rates of a config's training step, interleaved.

    Args:
        config: Name of the config.
        images: Of a batch.
        repeats: Number of steps, after one that is not counted.
        ways: Options of ``build_step``, by name.
    """
    steps = {
        name: build_step(config, images, **options)
        for name, options in ways.items()
    }
    return rates(steps, images, repeats)


def build_step(
    config: str,
    images: int,
    *,
    channels_last: bool = False,
    bfloat16: bool = False,
    compiled: bool = False,
) -> Callable[[], object]:
    """A config's training step on a random batch.

    Args:
        config: Name of the config.
        images: Of the batch.
        channels_last: As ``ChannelsLastHook`` does.
        bfloat16: As ``--amp`` does on a CPU.
        compiled: As ``compile=True`` does.
    """
    cfg = read_config(config)
    if bfloat16:
        cfg.optim_wrapper.type = 'fgc_mm.BFloat16OptimWrapper'
    model, optim = build_training(cfg, cfg.train_cfg.max_epochs // 2)
    if channels_last:
        model.to(memory_format=torch.channels_last)
    if compiled:
        getattr(model.backbone, 'backbone', model.backbone).compile()
    data = random_batch(cfg, images)
    return lambda: model.train_step(data, optim)


def rates(
    steps: dict[str, Callable[[], object]], images: int, repeats: int
) -> dict[str, Rate]:
    """Medians of the repeats, after one that is not counted."""
    return {
        name: Rate(images / median(taken.wall), images / median(taken.cpu))
        for name, taken in interleave(steps, repeats).items()
    }


def side_by_side(args: argparse.Namespace, threads: int) -> Rate:
    """The total rate of processes with this number of threads each."""
    count = args.processes // threads
    command = [sys.executable, __file__, '--only-steps', args.config]
    command += ['--images', str(args.images), '--repeats', str(args.repeats)]
    environment = {**os.environ, 'OMP_NUM_THREADS': str(threads)}
    running = [
        subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, text=True
        )
        for _ in range(count)
    ]
    said = [process.communicate()[0].split()[-2:] for process in running]
    walls, cpus = (map(float, numbers) for numbers in zip(*said))
    return Rate(sum(walls), fmean(cpus))


def report(args: argparse.Namespace) -> None:
    """Prints all rates."""
    torch.set_num_threads(1)
    has = 'multiplies' if multiplies_bfloat16() else 'does not multiply'
    print(f'one thread, load {os.getloadavg()[0]:.1f}, CPU {has} bfloat16')
    with image_folder(args.files) as folder:
        for name, config in READERS.items():
            show(name, reading_rate(config, folder, args.repeats))
    print(f'training steps of {args.config}, {args.images} images')
    steps = dict(STEPS)
    if args.compile:
        steps[COMPILED] = dict(channels_last=True, compiled=True)
    found = training_rates(args.config, args.images, args.repeats, steps)
    for name, rate in found.items():
        show(name, rate)
    if args.processes > 1:
        count = args.processes
        show(f'{count} processes, channels_last', side_by_side(args, 1))
        show(f'one process, {count} threads', side_by_side(args, count))


def show(name: str, found: Rate) -> None:
    """One line."""
    print(
        f'  {name:28s}{found.wall:9,.0f} images/s, '
        f'{found.cpu:9,.0f} per CPU second',
        flush=True,
    )


def main() -> None:
    """The report, or in a process of the report a single rate."""
    parser = text_parser(__doc__)
    parser.add_argument('--config', default='bas_resnet20_folder16_55')
    parser.add_argument('--images', type=int, default=256)
    parser.add_argument('--files', type=int, default=1024)
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--processes', type=int, default=1)
    parser.add_argument('--compile', action='store_true')
    parser.add_argument(
        '--only-steps', metavar='CONFIG', help=argparse.SUPPRESS
    )
    args = parser.parse_args()
    logging.disable(logging.INFO)  # mmengine lists every gate parameter
    keep_freed_memory()
    if args.only_steps is None:
        report(args)
        return
    threads = int(os.environ['OMP_NUM_THREADS'])
    torch.set_num_threads(threads)
    name = 'channels_last'
    found = training_rates(
        args.only_steps, args.images, args.repeats, {name: STEPS[name]}
    )[name]
    print(found.wall, found.cpu)


if __name__ == '__main__':
    main()
