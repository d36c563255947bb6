"""Exports a trained gated model as ONNX, and compares it with torch.

    fgc-mm export onnx CONFIG CHECKPOINT --out FILE.onnx [--dynamic]

The masked model (opset 18, any batch size; it computes every channel and
multiplies by the masks) runs in any ONNX runtime. With --dynamic the file
computes open channels only, for a single image: gate, indices of the open
channels (NonZero), their weights (Gather), a conv with these. Input: images
after the data preprocessor. Output: logits, before the softmax.
"""

from argparse import ArgumentParser

from fgc_mm.cli.arguments import add_export


def add_arguments(parser: ArgumentParser) -> None:
    add_export(parser)
    parser.add_argument(
        '--dynamic', action='store_true', help='open channels only, batch 1'
    )
