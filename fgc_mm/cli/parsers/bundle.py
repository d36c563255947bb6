"""A trained gated model as one file that runs without torch.

    fgc-mm export bundle CONFIG CHECKPOINT --out model.fgc
    python -m fgc_mm.runtime model.fgc cat.jpg

The file contains the network, of which only the open channels of each image
are computed, with class names, preprocessing settings and MACs. It is
compared with the masked model before it is written. docs/runtime.md describes
it.
"""

from argparse import ArgumentParser
from pathlib import Path

from fgc_mm.cli.arguments import PRECISIONS, add_checkpoint


def add_arguments(parser: ArgumentParser) -> None:
    add_checkpoint(parser)
    parser.add_argument('--out', required=True, help='file to write')
    parser.add_argument(
        '--images', type=Path,
        help='folder of pictures for the comparison (default: the test set)',
    )  # fmt: skip
    parser.add_argument(
        '--count', type=int, default=16, help='number of images (16)'
    )
    parser.add_argument(
        '--precision', choices=PRECISIONS, default=PRECISIONS[0],
        help='precision of the inputs and weights of convs; bfloat16 is used '
        'on CPUs that multiply it faster than float32',
    )  # fmt: skip
