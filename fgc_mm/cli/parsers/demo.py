"""Trains and tests a dense and a dynamic ResNet-20 in a few minutes.

Trains both in parallel on scikit-learn's handwritten digits with fgc-mm
train, tests their last epoch with fgc-mm test, and prints accuracy and MACs.
"""

from argparse import ArgumentParser
from pathlib import Path


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        '--work-dir',
        type=Path,
        default=Path('work_dirs/demo'),
        help='folder of both runs (work_dirs/demo)',
    )
    parser.add_argument(
        '--seed', type=int, default=0, help='of both trainings (0)'
    )
