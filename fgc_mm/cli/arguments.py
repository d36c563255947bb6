"""Arguments that several commands have in common.

The parsers of the commands (``fgc_mm.cli.parsers``) use this module. Both
import the standard library only, so that ``--help`` and a wrong argument do
not wait for torch and OpenMMLab.
"""

import argparse
from difflib import get_close_matches
from pathlib import Path
from typing import NoReturn

PRECISIONS = 'float32', 'bfloat16'  # of convs computed in open channels only


class OptionParser(argparse.ArgumentParser):
    """A parser that names the nearest option where one is unknown."""

    def error(self, message: str) -> NoReturn:
        unknown = message.partition('unrecognized arguments: ')[2].split()
        if unknown:
            option = unknown[0].partition('=')[0]
            known = [*self._option_string_actions]
            for nearest in get_close_matches(option, known, n=1):
                message += f'; did you mean {nearest}?'
        super().error(message)


def text_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser that prints its description as it is written."""
    return OptionParser(
        description=description,
        allow_abbrev=False,  # --epoch is an error, not --epochs
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_config(
    parser: argparse.ArgumentParser, config: str = 'config of a gated model'
) -> None:
    """Adds CONFIG, with this description, and ``--cfg-options``."""
    parser.add_argument('config', help=config)
    add_cfg_options(parser, 'as in train.py')


def add_checkpoint(
    parser: argparse.ArgumentParser,
    config: str = 'config of a gated model',
    checkpoint: str = 'its checkpoint',
) -> None:
    """Adds CONFIG, ``--cfg-options`` and CHECKPOINT."""
    add_config(parser, config)
    parser.add_argument('checkpoint', help=checkpoint)


def add_export(parser: argparse.ArgumentParser) -> None:
    """Adds what the exports have that are compared with torch."""
    add_checkpoint(parser)
    parser.add_argument('--out', required=True, help='file to write')
    parser.add_argument(
        '--images',
        type=int,
        default=32,
        help='number of images for the comparison (32)',
    )


def add_coverage(
    parser: argparse.ArgumentParser, name: str, seconds: float
) -> None:
    """Adds the arguments of commands that test all of mmpretrain's models."""
    for option, suffix, text in (
        ('--rows', 'jsonl', 'file of the results, which are not repeated'),
        ('--report', 'md', 'table to write'),
    ):
        default = Path('work_dirs', f'{name}.{suffix}')
        parser.add_argument(
            option,
            type=Path,
            default=default,
            help=f'{text} (default: {default})',
        )
    parser.add_argument(
        '--seconds',
        type=float,
        default=seconds,
        help=f'time limit for a backbone (default: {seconds})',
    )


def add_cfg_options(parser: argparse.ArgumentParser, text: str) -> None:
    """Adds ``--cfg-options``: a list of pairs, read with the config."""
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
