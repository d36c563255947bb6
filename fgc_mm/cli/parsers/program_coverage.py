"""Tests which of mmpretrain's backbones run as one call of the runtime.

    fgc-mm coverage programs --report FILE

For every class of backbones that mmpretrain lists, the model with the fewest
parameters gets gates at its sites and random weights. Its program is compared
with the masked network on a small image. Each model has its own process.
"""

from __future__ import annotations

import argparse

from fgc_mm.cli.arguments import coverage_parser


def parse_args() -> argparse.Namespace:
    """The arguments."""
    parser = coverage_parser(__doc__, 'program_coverage', 240)
    parser.add_argument('--only', nargs='*', help='classes of backbones')
    return parser.parse_args()
