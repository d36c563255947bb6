"""What the gates of trained checkpoints do, as numbers, figures, a report.

    fgc-mm analyze CONFIG CHECKPOINT \\
        [CHECKPOINT ...] --out DIR

One pass over the test set stores, per checkpoint and image, the pooled
features, logits, probabilities and masks of every gate, and MACs, label,
prediction and scores, under DIR/passes; a second run with the same content
(weights, config, images) takes it from there, and a pass that was cut off
goes on. From these come mutual information of feature and gate clusters,
maps of features and gates, execution frequencies per class, retrieval by
gates, common neighbours, error by MACs, cheapest and dearest images, dead
and always-open channels, and calibration. DIR gets report.html (one file
that opens offline), numbers.json, tables/*.csv and figures/*.{png,svg}.
Several checkpoints, as of several epochs or methods, stand side by side.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mmengine.config import Config

from fgc_mm.analysis import (
    AnalysisOptions,
    Measurement,
    choose_images,
    load_dataset,
    measure,
    pictures_of,
    stored_pass,
    write_analysis,
)
from fgc_mm.analysis.options import GATE_VECTORS
from fgc_mm.analysis.statistics import METHODS, choose_method
from fgc_mm.cli.arguments import config_parser, read_config
from fgc_mm.errors import FGCError
from fgc_mm.reliability.checkpoint import read_checkpoint
from fgc_mm.reliability.work_dir_lock import WorkDirLock


def main() -> None:
    """Extract, measure, write."""
    args = parse_args()
    options = options_of(args)
    names = checkpoint_names(args.checkpoints)
    cfg = read_config(args)
    for checkpoint in args.checkpoints:
        read_checkpoint(checkpoint)
    dataset = load_dataset(cfg, args.split)
    indices = choose_images(len(dataset), args.images)
    lock = WorkDirLock()
    args.out.mkdir(parents=True, exist_ok=True)
    lock.take(args.out)
    measured: list[Measurement] = []
    for checkpoint, name in zip(args.checkpoints, names):
        stored = stored_pass(
            cfg, checkpoint, name, dataset, indices, args.split,
            args.out / 'passes',
        )  # fmt: skip
        print(f'{name}: statistics', flush=True)
        before = measured[-1] if measured else None
        measured.append(measure(stored, options, before))
    picture = None if args.no_pictures else pictures_of(cfg, dataset)
    about = about_of(args, cfg, options, len(indices))
    print('figures and report', flush=True)
    report = write_analysis(measured, options, about, args.out, picture)
    print(f'written: {report}')
    lock.release()


def parse_args() -> argparse.Namespace:
    """The arguments."""
    parser = config_parser(__doc__)
    parser.add_argument('checkpoints', nargs='+', metavar='CHECKPOINT')
    parser.add_argument('--out', type=Path, required=True, metavar='DIR')
    parser.add_argument(
        '--split', choices=['test', 'train'], default='test',
        help='which images (default: test); never augmented',
    )  # fmt: skip
    parser.add_argument(
        '--images', type=int, metavar='N',
        help='only so many, at even distances; default: all',
    )  # fmt: skip
    parser.add_argument(
        '--sites', nargs='+', default=(), metavar='SITE',
        help='names or shell patterns; default: all gated sites',
    )  # fmt: skip
    parser.add_argument(
        '--gate-vector', choices=GATE_VECTORS, default='logits',
        help='what stands for a gate in gate space (default: logits, as in\n'
        'the coupling loss)',
    )  # fmt: skip
    parser.add_argument(
        '--clusters', type=int, metavar='K',
        help='of K-means; default: as many as classes',
    )  # fmt: skip
    parser.add_argument(
        '--neighbors', type=int, metavar='K',
        help='default: a fiftieth of the images, at most 200',
    )  # fmt: skip
    parser.add_argument(
        '--embedding', choices=['auto', *METHODS], default='auto',
        help='default: umap where umap-learn is installed, else tsne',
    )  # fmt: skip
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument(
        '--no-pictures', action='store_true',
        help='leave pictures of single images out',
    )  # fmt: skip
    return parser.parse_args()


def options_of(args: argparse.Namespace) -> AnalysisOptions:
    """What the arguments ask to be measured; refused before any pass."""
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
    """The shortest ends of the paths that tell them apart, no suffix."""
    parts = [Path(path).resolve().with_suffix('').parts for path in paths]
    for path in paths:
        if paths.count(path) > 1 or parts.count(parts[paths.index(path)]) > 1:
            raise FGCError(
                f'{path} is given more than once, but checkpoints stand side '
                'by side under their names; give each once.'
            )
    for length in range(1, max(map(len, parts)) + 1):
        names = ['/'.join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return paths


def about_of(
    args: argparse.Namespace, cfg: Config, options: AnalysisOptions, count: int
) -> dict[str, Any]:
    """The head of the report."""
    return {
        'config': Path(args.config).name,
        'images': f'{count} of the {args.split} set',
        'checkpoints': ', '.join(Path(p).name for p in args.checkpoints),
        'gate': cfg.model.backbone.gate.type,
        'gate vector': options.gate_vector,
        'seed': options.seed,
    }
