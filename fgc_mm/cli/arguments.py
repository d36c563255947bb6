"""Arguments that several commands have in common."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from mmengine.config import Config

from fgc_mm.engine.config_options import ConfigOptions


def add_shared_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that upstream's train.py and test.py share."""
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
        help='what started the processes (default: none, a single process)',
    )
    # torch.distributed.launch passes it in one of the two spellings;
    # torchrun does not
    parser.add_argument(
        '--local_rank',
        '--local-rank',
        type=int,
        default=0,
        help='(unused by torchrun) number of this process on its machine',
    )


def parse_arguments(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parses the command line; sets LOCAL_RANK from --local-rank."""
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def choose_work_dir(cfg: Config, args: argparse.Namespace) -> None:
    """Sets --work-dir, the config's, or ./work_dirs/NAME_OF_CONFIG."""
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs', Path(args.config).stem))
