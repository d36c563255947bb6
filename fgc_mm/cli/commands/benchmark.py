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

import torch
from mmengine.config import Config
from torch import Tensor, nn

from fgc_mm.cli.arguments import config_parser, trained_model
from fgc_mm.cli.benchmark_figure import draw_benchmark
from fgc_mm.cli.benchmark_tables import show_run
from fgc_mm.deploy import images_of
from fgc_mm.deploy.timing.measure import measure
from fgc_mm.deploy.timing.variants import BenchmarkVariants
from fgc_mm.errors import FGCError
from fgc_mm.figure_style import (
    FORMATS,
)
from fgc_mm.reliability.atomic_file import write_atomically
from fgc_mm.runtime.cpu import cpu_name
from fgc_mm.runtime.errors import LibraryError
from fgc_mm.runtime.library import builds


def main() -> None:
    """Build, time, print, write."""
    args = parse_args()
    cfg, model = trained_model(args)
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
    runs = []
    for threads in args.threads:
        torch.set_num_threads(threads)
        variants = BenchmarkVariants(
            model, settings, images, others, folder, not args.no_compile
        ).all()
        runs.append(measure(model, variants, images, args.batch, args.rounds))
        show_run(runs[-1])
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
    parser = config_parser(__doc__)
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
