"""Statistics, figures and a report of the gates of trained checkpoints."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmengine.config import Config

from fgc_mm.analysis import (
    AnalysisOptions,
    Measurement,
    choose_images,
    exchange_masks,
    load_dataset,
    load_or_run_pass,
    measure,
    pictures_of,
    write_analysis,
)
from fgc_mm.analysis.statistics import choose_method
from fgc_mm.cli.given_config import read_config
from fgc_mm.errors import FGCError
from fgc_mm.reliability.checkpoint_reader import read_checkpoint
from fgc_mm.reliability.work_dir_lock import WorkDirLock
from fgc_mm.type_name import type_name


def main(args: argparse.Namespace) -> None:
    """Extract, measure, write."""
    options = options_of(args)
    names = checkpoint_names(args.checkpoints)
    cfg = read_config(args)
    for checkpoint in args.checkpoints:
        read_checkpoint(checkpoint)
    dataset = load_dataset(cfg, args.split)
    indices = choose_images(len(dataset), args.images)
    lock = WorkDirLock()
    args.out.mkdir(parents=True, exist_ok=True)
    lock.acquire(args.out)
    measured: list[Measurement] = []
    for checkpoint, name in zip(args.checkpoints, names):
        stored = load_or_run_pass(
            cfg, checkpoint, name, dataset, indices, args.split,
            args.out / 'passes', wanted=options.sites,
        )  # fmt: skip
        print(f'{name}: statistics', flush=True)
        before = measured[-1] if measured else None
        found = measure(stored, options, before)
        if args.exchange:
            print(f'{name}: masks of other images', flush=True)
            rows = exchange_masks(
                cfg, checkpoint, dataset, stored, options.seed
            )
            found = replace(found, exchanged=rows)
        measured.append(found)
    picture = None if args.no_pictures else pictures_of(cfg, dataset)
    about = about_of(args, cfg, options, len(indices))
    print('figures and report', flush=True)
    report = write_analysis(measured, options, about, args.out, picture)
    print(f'written: {report}')
    lock.release()


def options_of(args: argparse.Namespace) -> AnalysisOptions:
    """The options of the analysis, checked as far as no pass is needed."""
    choose_method(args.embedding)
    return AnalysisOptions(
        sites=tuple(args.sites),
        gate_vector=args.gate_vector,
        clusters=args.clusters,
        neighbors=args.neighbors,
        embedding=args.embedding,
        seed=args.seed,
    )


def checkpoint_names(paths: list[str]) -> list[str]:
    """The shortest unique ends of the paths, without suffix."""
    files = [Path(path).resolve() for path in paths]
    for path, file in zip(paths, files):
        if files.count(file) > 1:
            raise FGCError(
                f'{path} is given more than once, but each checkpoint is '
                'shown under its name; give each once.'
            )
    parts = [file.with_suffix('').parts for file in files]
    for length in range(1, max(map(len, parts)) + 1):
        names = ['/'.join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [str(file) for file in files]  # that differ in their suffixes


def about_of(
    args: argparse.Namespace, cfg: Config, options: AnalysisOptions, count: int
) -> dict[str, Any]:
    """Names and values at the top of the report."""
    return {
        'config': Path(args.config).name,
        'images': f'{count} of the {args.split} set',
        'checkpoints': ', '.join(Path(p).name for p in args.checkpoints),
        'gate': type_name(cfg.model.backbone.gate),
        'gate vector': options.gate_vector,
        'seed': options.seed,
    }
