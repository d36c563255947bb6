"""Exports a trained gated model as ONNX, and compares it with torch."""

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor

from fgc_mm.cli.given_config import trained_model
from fgc_mm.deploy import PlainForward, images_of
from fgc_mm.deploy.export.check import check_same, largest_difference
from fgc_mm.deploy.export.onnx import (
    export_gathered_onnx,
    export_onnx,
    onnx_logits,
    require_onnx,
)
from fgc_mm.reliability.atomic_file import check_writable


def main(args: argparse.Namespace) -> None:
    """Export, compare, time."""
    require_onnx()
    check_writable(args.out)
    cfg, model = trained_model(args)
    images = torch.cat(list(images_of(cfg, model, args.images)))
    images = images if len(images) > 1 else images.repeat(2, 1, 1, 1)
    if args.dynamic:
        for site, what in export_gathered_onnx(
            model, images, args.out
        ).items():
            print(f'{site}: {what}')
    else:
        export_onnx(model, images[:2], args.out)
    compare(PlainForward(model), onnx_logits(args.out), images, args)


@torch.no_grad()
def compare(
    plain: Callable[[Tensor], Tensor],
    exported: Callable[[Tensor], Tensor],
    images: Tensor,
    args: argparse.Namespace,
) -> None:
    """Compare the logits, and print the times for one image."""
    batches = list(images.split(1))
    if not args.dynamic:
        batches += [images[:3], images]
    gap = largest_difference(plain, exported, batches)
    check_same(gap, args.out)
    seconds: list[list[float]] = [[], []]
    for image in images.split(1):
        for run, taken in zip((plain, exported), seconds):
            start = time.perf_counter()
            run(image)
            taken.append(time.perf_counter() - start)
    torch_ms, onnx_ms = (1e3 * median(taken) for taken in seconds)
    size = 'x'.join(map(str, images.shape[1:]))
    print(
        f'{args.out}: logits of {len(images)} images of {size} differ by '
        f'{gap:.1e} at most; one image takes {onnx_ms:.1f} ms in ONNX Runtime '
        f'and {torch_ms:.1f} ms masked in torch ({torch_ms / onnx_ms:.2f} x), '
        f'{torch.get_num_threads()} threads'
    )
