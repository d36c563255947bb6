"""Writes a checkpoint whose gates have a given keep ratio.

    fgc-mm export keep-ratio CONFIG [CHECKPOINT] \\
        --keep-ratio 0.44 --out FILE

For timing without training: it shifts the last bias of every gate so that, on
images of the config's test set, every site opens that fraction of its channels
on average. Masks vary from image to image, and each channel is open for a
different fraction of the images. The weights are those of CHECKPOINT; without
CHECKPOINT they are random, and the accuracy is that of random guessing.
"""

from argparse import ArgumentParser

from fgc_mm.cli.arguments import add_config


def add_arguments(parser: ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument(
        'checkpoint', nargs='?', help='weights; default: random weights'
    )
    parser.add_argument(
        '--keep-ratio',
        type=float,
        required=True,
        help='fraction of channels that are open at every site',
    )
    parser.add_argument('--out', required=True, help='checkpoint to write')
    parser.add_argument(
        '--images', type=int, default=200, help='number of test images (200)'
    )
    parser.add_argument(
        '--seed', type=int, default=0, help='seed of random weights'
    )
