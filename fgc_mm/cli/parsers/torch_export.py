"""Exports a trained gated model with torch.export, and compares it.

    fgc-mm export torch-export CONFIG CHECKPOINT --out FILE.pt2

Exports the masked model for batches of up to 4096 images: torch.export.load
(FILE) runs it without fgc_mm, mmpretrain or the config. Input: images after
the data preprocessor. Output: logits, before the softmax.
"""

from argparse import ArgumentParser

from fgc_mm.cli.arguments import add_checkpoint


def add_arguments(parser: ArgumentParser) -> None:
    add_checkpoint(parser)
    parser.add_argument('--out', required=True, help='file to write')
    parser.add_argument(
        '--images',
        type=int,
        default=32,
        help='number of images for the comparison (32)',
    )
