"""Tests which of mmpretrain's backbones run as one call of the runtime.

    fgc-mm coverage programs --report FILE

For every class of backbones that mmpretrain lists, the model with the fewest
parameters gets gates at its sites and random weights. Its program is compared
with the masked network on a small image. Each model has its own process.
"""

from argparse import ArgumentParser

from fgc_mm.cli.arguments import add_coverage


def add_arguments(parser: ArgumentParser) -> None:
    add_coverage(parser, 'program_coverage', 240)
    parser.add_argument('--only', nargs='*', help='classes of backbones')
