"""Exports a trained gated model with torch.export, and compares it.

    fgc-mm export torch-export CONFIG CHECKPOINT --out FILE.pt2

Exports the masked model for batches of up to 4096 images: torch.export.load
(FILE) runs it without fgc_mm, mmpretrain or the config. Input: images after
the data preprocessor. Output: logits, before the softmax.
"""

from argparse import ArgumentParser

from fgc_mm.cli.arguments import add_export


def add_arguments(parser: ArgumentParser) -> None:
    add_export(parser)
