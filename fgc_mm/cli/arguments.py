"""Arguments that several commands have in common."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from mmengine.config import Config
from mmpretrain.models.classifiers import ImageClassifier

from fgc_mm.deploy.loading import build_trained
from fgc_mm.engine.config_file import load_config
from fgc_mm.engine.config_options import ConfigOptions, override


def text_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser that prints its description as it is written."""
    return argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawTextHelpFormatter,
    )


def config_parser(
    description: str | None, config: str = 'config of a gated model'
) -> argparse.ArgumentParser:
    """A parser with the arguments CONFIG and ``--cfg-options``.

    Args:
        description: Of the command.
        config: What the config describes, for ``--help``.
    """
    parser = text_parser(description)
    parser.add_argument('config', help=config)
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=ConfigOptions,
        metavar='KEY=VALUE',
        help='as in train.py',
    )
    return parser


def read_config(args: argparse.Namespace) -> Config:
    """The config of CONFIG and ``--cfg-options``."""
    cfg = load_config(args.config)
    override(cfg, args.cfg_options)
    return cfg


def trained_model(args: argparse.Namespace) -> tuple[Config, ImageClassifier]:
    """The config, and its gated model with the weights of CHECKPOINT."""
    cfg = read_config(args)
    return cfg, build_trained(cfg, args.checkpoint)


def add_shared_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that upstream's train.py and test.py both have."""
    parser.add_argument(
        '--no-pin-memory',
        action='store_true',
        help='do not load batches into pinned memory',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=ConfigOptions,
        metavar='KEY=VALUE',
        help='settings that override the config; a list is written '
        'key="[a,b]" or key=a,b, nested ones key="[(a,b),(c,d)]", without '
        'spaces',
    )
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='who started the processes (default: none, there is one)',
    )
    # torch.distributed.launch passes it in either spelling; torchrun does
    # not.
    parser.add_argument(
        '--local_rank',
        '--local-rank',
        type=int,
        default=0,
        help='(unused by torchrun) number of this process on its machine',
    )


def parse_arguments(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parses the command line, and exports --local-rank as mmengine does."""
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def choose_work_dir(cfg: Config, args: argparse.Namespace) -> None:
    """--work-dir, else the config's, else ./work_dirs/NAME_OF_CONFIG."""
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs', Path(args.config).stem))
