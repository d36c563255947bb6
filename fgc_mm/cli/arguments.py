"""Arguments that several commands have in common.

The parsers of the commands (``fgc_mm.cli.parsers``) use it. Both import the
standard library only, so that ``--help`` and a wrong argument do not wait for
torch and OpenMMLab.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

PRECISIONS = 'float32', 'bfloat16'  # of convs computed in open channels only


def text_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser that prints its description as it is written."""
    return argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
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
    add_cfg_options(parser, 'as in train.py')
    return parser


def checkpoint_parser(
    description: str | None,
    config: str = 'config of a gated model',
    checkpoint: str = 'its checkpoint',
) -> argparse.ArgumentParser:
    """A parser with CONFIG, ``--cfg-options`` and CHECKPOINT.

    Args:
        description: Of the command.
        config: What the config describes, for ``--help``.
        checkpoint: What the checkpoint is, for ``--help``.
    """
    parser = config_parser(description, config)
    parser.add_argument('checkpoint', help=checkpoint)
    return parser


def coverage_parser(
    description: str | None, name: str, seconds: float
) -> argparse.ArgumentParser:
    """A parser of the commands that examine every backbone of mmpretrain.

    Args:
        description: Of the command.
        name: Of the files for rows and report, in ``work_dirs``.
        seconds: Time limit.
    """
    parser = text_parser(description)
    for option, suffix, text in (
        ('--rows', 'jsonl', 'file of the results, which are not repeated'),
        ('--report', 'md', 'table to write'),
    ):
        default = Path('work_dirs', f'{name}.{suffix}')
        parser.add_argument(option, type=Path, default=default, help=text)
    parser.add_argument(
        '--seconds',
        type=float,
        default=seconds,
        help=f'time limit for a backbone (default: {seconds})',
    )
    return parser


def add_cfg_options(parser: argparse.ArgumentParser, text: str) -> None:
    """Adds ``--cfg-options``: a list of pairs, read when the config is."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action='extend',
        default=[],
        metavar='KEY=VALUE',
        help=text,
    )


def add_shared_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that upstream's train.py and test.py share."""
    parser.add_argument(
        '--no-pin-memory',
        action='store_true',
        help='do not load batches into pinned memory',
    )
    add_cfg_options(
        parser,
        'settings that override the config; a list is written '
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
