"""Exports a trained gated model with torch.export, and compares it."""

import argparse
import io

import torch

from fgc_mm.cli.given_config import trained_model
from fgc_mm.deploy import PlainForward, images_of
from fgc_mm.deploy.export.check import check_same, largest_difference
from fgc_mm.deploy.export.program import export_program
from fgc_mm.reliability.atomic_file import check_writable, write_atomically


def main(args: argparse.Namespace) -> None:
    """Export, load the file, compare."""
    check_writable(args.out)
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
