"""Exports a trained gated model with torch.export, and compares it.

    fgc-mm export torch-export CONFIG CHECKPOINT --out FILE.pt2

Exports the masked model for any batch size: torch.export.load(FILE) runs it
without fgc_mm, mmpretrain or the config. Input: images after the data
preprocessor. Output: logits, before the softmax.
"""

from __future__ import annotations

import argparse

from fgc_mm.cli.arguments import checkpoint_parser


def parse_args() -> argparse.Namespace:
    """The arguments."""
    parser = checkpoint_parser(__doc__)
    parser.add_argument('--out', required=True, help='file to write')
    parser.add_argument(
        '--images', type=int, default=32, help='to compare on (32)'
    )
    return parser.parse_args()
