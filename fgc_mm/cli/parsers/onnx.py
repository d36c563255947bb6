"""Exports a trained gated model as ONNX, and compares it with torch.

    fgc-mm export onnx CONFIG CHECKPOINT --out FILE.onnx [--dynamic]

The masked model (opset 18, any batch size; it computes every channel and
multiplies by the masks) runs in any ONNX runtime. With --dynamic the file
computes open channels only, for a single image: gate, indices of the open
channels (NonZero), their weights (Gather), a conv with these. Input: images
after the data preprocessor. Output: logits, before the softmax.
"""

from argparse import ArgumentParser

from fgc_mm.cli.arguments import add_checkpoint


def add_arguments(parser: ArgumentParser) -> None:
    add_checkpoint(parser)
    parser.add_argument('--out', required=True, help='file to write')
    parser.add_argument(
        '--dynamic', action='store_true', help='open channels only, batch 1'
    )
    parser.add_argument(
        '--images',
        type=int,
        default=32,
        help='number of images for the comparison (32)',
    )
