"""Accuracy over MACs of one trained model at several gate thresholds.

    fgc-mm sweep CONFIG CHECKPOINT

Tests with several values of the probability above which a gate opens a
channel, and writes a table (CSV) and a plot (PNG and SVG) into the work dir.
With --result FILE the table is also added, as threshold_sweep, to the file in
which fgc-mm compare --results has stored the results of that run.
"""

from argparse import ArgumentParser
from pathlib import Path

from fgc_mm.cli.arguments import add_checkpoint


def add_arguments(parser: ArgumentParser) -> None:
    add_checkpoint(parser)
    parser.add_argument('--work-dir', help='folder for table, plot and log')
    parser.add_argument(
        '--thresholds',
        type=float,
        nargs='+',
        metavar='P',
        help='between 0 and 1; default: eleven from 0.05 to 0.95',
    )
    parser.add_argument(
        '--result',
        type=Path,
        metavar='JSON',
        help='METHOD/seedN.json of fgc-mm compare --results, to which the '
        'sweep is added',
    )
