"""Measures how much time a trained gated model saves."""

import argparse
import json
from pathlib import Path

import torch
from mmengine.config import Config
from torch import Tensor, nn

from fgc_mm.cli.benchmark_figure import draw_benchmark
from fgc_mm.cli.benchmark_tables import show_run
from fgc_mm.cli.given_config import trained_model
from fgc_mm.deploy import images_of
from fgc_mm.deploy.timing.measure import measure
from fgc_mm.deploy.timing.variants import BenchmarkVariants
from fgc_mm.error_line import print_error_line
from fgc_mm.errors import FGCError
from fgc_mm.figure_style import FORMATS
from fgc_mm.reliability.atomic_file import write_atomically
from fgc_mm.runtime.cpu import cpu_name
from fgc_mm.runtime.errors import LibraryError
from fgc_mm.runtime.library import builds


def main(args: argparse.Namespace) -> None:
    """Build, time, print, write."""
    cfg, model = trained_model(args)
    images = load(cfg, model, args.images, 'test', args.size)
    try:
        others = load(cfg, model, args.calibration, 'train', args.size)
    except (FGCError, OSError):
        others = None
    if len(images) < args.batch:
        raise FGCError(
            f'--batch {args.batch} exceeds the {len(images)} images; give a '
            'smaller batch, or more --images.'
        )
    folder = Path(args.out)
    folder.mkdir(parents=True, exist_ok=True)
    settings = cfg.model.backbone.to_dict()
    runs = []
    for threads in args.threads or sorted({1, torch.get_num_threads()}):
        torch.set_num_threads(threads)
        variants = BenchmarkVariants(
            model, settings, images, others, folder, not args.no_compile
        )
        built = []
        for variant in variants.all():
            built.append(variant)
            # an animation would disturb the measured times
            print_error_line(f'built: {variant.name}')
        print_error_line(f'timing {len(built)} networks')
        runs.append(measure(model, built, images, args.batch, args.rounds))
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


def load(
    cfg: Config,
    model: nn.Module,
    count: int,
    split: str,
    size: list[int] | None,
) -> Tensor:
    """Images of a data set, resized if ``size`` is given."""
    images = torch.cat(list(images_of(cfg, model, count, split)))
    if size is None:
        return images
    return nn.functional.interpolate(
        images, (size[0], size[-1]), mode='bilinear'
    )


def _build_name() -> str:
    """Name of the runtime's build for this CPU; ``'none'`` without one."""
    try:
        return builds()[0]
    except LibraryError:
        return 'none'
