"""Plans the MACs of an FTWT model with one pass of the dense network.

    fgc-mm plan-budget CONFIG CHECKPOINT --budget 0.45

CONFIG has a MaskPredictionLoss, CHECKPOINT is that of the dense network from
which its training starts. Prints, for each ratio r, the expected MACs if
every gate reaches its target, and the r that meets the budget.
"""

from argparse import ArgumentParser
from pathlib import Path

from fgc_mm.cli.arguments import add_checkpoint


def add_arguments(parser: ArgumentParser) -> None:
    add_checkpoint(
        parser,
        'config file with a MaskPredictionLoss',
        'checkpoint of the dense network',
    )
    parser.add_argument(
        '--budget', type=float, help='MACs as a fraction of the dense MACs'
    )
    parser.add_argument(
        '--images', type=int, default=1024,
        help='number of training images (1024)',
    )  # fmt: skip
    parser.add_argument(
        '--out', type=Path, metavar='JSON',
        help='also write the ratio that meets the budget to this file',
    )  # fmt: skip
