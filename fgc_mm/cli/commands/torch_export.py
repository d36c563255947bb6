"""A trained gated model as an exported program, compared on real images.

    fgc-mm export torch-export CONFIG CHECKPOINT --out FILE.pt2

torch.export of the masked model, for any batch size: torch.export.load(FILE)
runs it without fgc_mm, mmpretrain or the config. Input: images as the data
preprocessor gives them. Output: logits, before the softmax.
"""

from __future__ import annotations

import argparse
import io

import torch

from fgc_mm.cli.arguments import config_parser, trained_model
from fgc_mm.deploy import PlainForward, images_of
from fgc_mm.deploy.export.files import (
    check_same,
    export_program,
    largest_difference,
)
from fgc_mm.reliability.atomic_file import write_atomically


def main() -> None:
    """Export, read it again, compare."""
    args = parse_args()
    cfg, model = trained_model(args)
    images = torch.cat(list(images_of(cfg, model, args.images)))
    program = export_program(model, images[:1].repeat(2, 1, 1, 1))
    with io.BytesIO() as stream:
        torch.export.save(program, stream)
        write_atomically(stream.getvalue(), args.out)
    again = torch.export.load(args.out).module()
    batches = [images[:1], images[:3], images]
    gap = largest_difference(PlainForward(model), again, batches)
    check_same(gap, args.out)
    print(
        f'{args.out}: logits of {len(images)} images differ by {gap:.1e} at '
        'most from those of the masked model'
    )


def parse_args() -> argparse.Namespace:
    """The arguments."""
    parser = config_parser(__doc__)
    parser.add_argument('checkpoint', help='its checkpoint')
    parser.add_argument('--out', required=True, help='file to write')
    parser.add_argument(
        '--images', type=int, default=32, help='to compare on (32)'
    )
    return parser.parse_args()
