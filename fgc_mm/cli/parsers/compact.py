"""Removes channels that are never open from a trained gated model.

    fgc-mm export compact CONFIG CHECKPOINT --out DIR

Counts on calibration images (of the training set, with the test pipeline) how
often every channel is open. Channels that are never open are removed from the
network, for channels that are always open the output of the gate is removed,
and a site where all channels are one or the other loses its gate. Written to
DIR: config.py (for fgc-mm test and fgc-mm train), channels.json (the
remaining channels) and model.pth. The folder may be moved.
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from fgc_mm.cli.arguments import add_checkpoint
from fgc_mm.errors import FGCError


def add_arguments(parser: ArgumentParser) -> None:
    add_checkpoint(parser)
    parser.add_argument('--out', required=True, help='folder to write to')
    parser.add_argument(
        '--images',
        type=int,
        default=512,
        help='number of images for calibration (512)',
    )
    parser.add_argument(
        '--split', choices=('train', 'test'), default='train',
        help='data set of these images (train)',
    )  # fmt: skip
    parser.add_argument(
        '--tolerance', type=float, default=0.0,
        help='fraction of these images for which a channel that counts as '
        'never (always) open may be open (closed); default: 0',
    )  # fmt: skip
    parser.add_argument(
        '--test', action='store_true',
        help="print the accuracy on the config's test set before and after",
    )  # fmt: skip


def check_arguments(args: Namespace) -> None:
    if Path(args.out).exists() and not Path(args.out).is_dir():
        raise FGCError(
            f'--out {args.out} is a file, but three files are written into '
            'a folder; give another name.'
        )
