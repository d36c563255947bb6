"""Measures how much time a trained gated model saves.

    fgc-mm benchmark CONFIG CHECKPOINT --out DIR

Runs images of the config's test set through the dense network, the masked
one, the statically compacted one, the dynamic one, and the compacted dynamic
one; interleaved, with the masks of the model's gates, which vary from image
to image. Ratios are relative to the fastest dense variant (eager, folded
norms, channels last, compiled, the runtime's kernel without gates, ONNX
Runtime). 'static' is the dense network with as many channels as the gates
open on average; its speedup is an upper bound. Writes benchmark.json,
benchmark.png and benchmark.svg to DIR.
"""

from argparse import ArgumentParser, Namespace

from fgc_mm.cli.arguments import add_checkpoint
from fgc_mm.errors import FGCError


def add_arguments(parser: ArgumentParser) -> None:
    add_checkpoint(parser)
    parser.add_argument('--out', required=True, help='folder to write to')
    parser.add_argument(
        '--images',
        type=int,
        default=50,
        help='number of test images that are timed (50)',
    )
    parser.add_argument(
        '--calibration', type=int, default=128,
        help='number of training images for the statistics of compaction '
        '(128)',
    )  # fmt: skip
    parser.add_argument(
        '--rounds',
        type=int,
        default=3,
        help='how often every image is timed (3)',
    )
    parser.add_argument(
        '--batch', type=int, default=1, help='images in a batch (1)'
    )
    parser.add_argument(
        '--threads', type=int, nargs='+',
        help='numbers of threads; default: 1, and as many as torch uses',
    )  # fmt: skip
    parser.add_argument(
        '--size',
        type=int,
        nargs='+',
        help='size to which images are resized; default: no resizing',
    )
    parser.add_argument(
        '--no-compile', action='store_true', help='leave out torch.compile'
    )


def check_arguments(args: Namespace) -> None:
    if args.size is not None and len(args.size) > 2:
        raise FGCError(
            f'--size {" ".join(map(str, args.size))} is not a height and '
            'width; give one or two numbers.'
        )
    for name in ('calibration', 'rounds', 'batch', 'threads', 'size'):
        given = getattr(args, name)
        numbers = given if isinstance(given, list) else [given]
        if given is not None and min(numbers) < 1:
            raise FGCError(
                f'--{name} {min(numbers)} is not positive; give at least 1.'
            )
