"""A trained gated model as one file that runs without torch.

    fgc-mm export bundle CONFIG CHECKPOINT --out model.fgc
    python -m fgc_mm.runtime model.fgc cat.jpg

The file contains the network, of which only open channels are computed, image
by image, and class names, preprocessing settings and MACs. It is compared
with the masked model before it gets its name. docs/runtime.md describes it.
"""

from argparse import ArgumentParser
from pathlib import Path

from fgc_mm.cli.arguments import PRECISIONS, add_checkpoint


def add_arguments(parser: ArgumentParser) -> None:
    add_checkpoint(parser)
    parser.add_argument('--out', required=True, help='file to write')
    parser.add_argument(
        '--images', type=Path,
        help='folder of pictures to compare on (the test set)',
    )  # fmt: skip
    parser.add_argument(
        '--count', type=int, default=16, help='how many images (16)'
    )
    parser.add_argument(
        '--precision', choices=PRECISIONS, default=PRECISIONS[0],
        help='of the inputs and weights of convs, where the CPU multiplies it',
    )  # fmt: skip
