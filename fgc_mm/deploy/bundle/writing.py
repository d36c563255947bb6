"""Writes a program file after comparing it with the masked model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fgc_mm.deploy.comparing import (
    TOLERANCES,
    differs_by_rounding,
    records_of_image,
)
from fgc_mm.errors import FGCError
from fgc_mm.models import GatedImageClassifier
from fgc_mm.models.class_scores import class_scores
from fgc_mm.reliability.atomic_file import write_atomically
from fgc_mm.runtime.classifier import Classifier
from fgc_mm.runtime.format import Call, Program, encode
from fgc_mm.runtime.library import can_multiply_bfloat16
from fgc_mm.runtime.model import Model


@dataclass(frozen=True)
class WrittenFile:
    """Result of writing and checking a file.

    Attributes:
        images: Number of images in the comparison.
        edge: Number of images that were left out because a gate's logit is so
            near to 0 that rounding determines the mask.
        gap: Largest relative difference of a logit (see ``TOLERANCES``).
        macs: Mean per image.
        dense: MACs of the network without gates.
        size: Size of the file in bytes.
        build: Build of the runtime that ran it.
        precision: ``'float32'`` or ``'bfloat16'``, as it ran here.
    """

    images: int
    edge: int
    gap: float
    macs: float
    dense: int
    size: int
    build: str
    precision: str


def write_file(
    program: Program,
    model: GatedImageClassifier,
    images: Tensor,
    path: str | Path,
) -> WrittenFile:
    """Write a program to a file, after comparing it with the masked model.

    Args:
        program: The program, including its JSON
            (:func:`fgc_mm.deploy.bundle.meta.file_meta`).
        model: The masked model that it was made from.
        images: (N, C, H, W), preprocessed.
        path: The file.

    Raises:
        FGCError: The logits differ by more than the tolerance of the
            precision, or an operation is a call of torch.
    """
    _refuse_calls(program)
    data = encode(program)
    half = program.bfloat16 and can_multiply_bfloat16()
    with Model.from_bytes(data, 'bfloat16' if half else None) as loaded:
        outputs = loaded.run(images.numpy(), decisions=True)
        sites = program.meta['sites']
        tolerance = TOLERANCES[loaded.precision]
        gaps, edge = _compare(outputs, sites, model, images, tolerance)
        _check(gaps, edge, Path(path).name, tolerance)
        macs = Classifier(loaded).cost(outputs)[0]
        build, precision = loaded.build, loaded.precision
    write_atomically(data, path)
    return WrittenFile(
        len(images),
        int(edge.sum()),
        float(gaps[~edge].max()),
        float(macs.mean()),
        program.meta['macs']['dense'],
        len(data),
        build,
        precision,
    )


def _refuse_calls(program: Program) -> None:
    for op, name in zip(program.ops, program.names):
        if isinstance(op, Call):
            raise FGCError(
                f'{name} is computed by torch, which the runtime does not '
                'have, so this network cannot be written to a file; export '
                'it with tools/export/onnx.py.'
            )


@torch.no_grad()
def _compare(
    outputs: list[np.ndarray],
    sites: list[dict],
    model: GatedImageClassifier,
    images: Tensor,
    tolerance: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Difference of each image, and whether rounding explains it; (N,)."""
    feats, records = model._extract_gated(images)
    wanted = class_scores(model.head, feats, 'the runtime').numpy()
    scale = max(1.0, float(np.abs(wanted).max()))
    apart = np.abs(outputs[0].reshape(wanted.shape) - wanted)
    gaps = apart.max(axis=1) / scale
    found = [
        replace(
            record,
            logits=_tensor_like(record.logits, outputs[site['logits']]),
            mask=_tensor_like(record.mask, outputs[site['output']]),
        )
        for site, record in zip(sites, records, strict=True)
    ]
    edge = [
        gaps[n] > tolerance
        and differs_by_rounding(
            records_of_image(records, n), records_of_image(found, n), tolerance
        )
        for n in range(len(images))
    ]
    return gaps, np.array(edge)


def _tensor_like(like: Tensor, output: np.ndarray) -> Tensor:
    return torch.from_numpy(output).reshape(like.shape)


def _check(
    gaps: np.ndarray, edge: np.ndarray, name: str, tolerance: float
) -> None:
    compared = gaps[~edge]
    if len(compared) and (compared <= tolerance).all():
        return
    gap = compared.max() if len(compared) else gaps.max()
    raise FGCError(
        f'the logits of {name} differ by {gap:.1e} from those of the '
        f'masked model on {len(gaps)} images, and {tolerance:.0e} is allowed, '
        'so it is not written; report the config, or export with '
        'tools/export/onnx.py.'
    )
