"""Plans the MACs of an FTWT model with one pass of the dense network.

    fgc-mm plan-budget CONFIG CHECKPOINT --budget 0.45

CONFIG has a MaskPredictionLoss, CHECKPOINT is that of the dense network from
which its training starts. Prints, for each ratio r, the expected MACs if
every gate reaches its target, and the r that meets the budget.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from fgc_mm.cli.arguments import checkpoint_parser


def parse_args() -> argparse.Namespace:
    """The arguments."""
    parser = checkpoint_parser(
        __doc__,
        'config file with a MaskPredictionLoss',
        'checkpoint of the dense network',
    )
    parser.add_argument(
        '--budget', type=float, help='MACs as a fraction of the dense MACs'
    )
    parser.add_argument(
        '--images', type=int, default=1024, help='number of training images'
    )
    parser.add_argument(
        '--out', type=Path, metavar='JSON',
        help='also write the ratio that meets the budget to this file',
    )  # fmt: skip
    return parser.parse_args()
