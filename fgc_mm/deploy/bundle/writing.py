"""Writing a file that has been compared with the masked model."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fgc_mm.deploy.export.plain_forward import PlainForward
from fgc_mm.errors import FGCError
from fgc_mm.runtime.classifier import Classifier
from fgc_mm.runtime.format import Program, encode
from fgc_mm.runtime.model import Model

# of a logit, as a share of the largest one if that is above 1
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Written:
    """What a file was found to be.

    Attributes:
        images: On which it was compared.
        gap: Largest difference of a logit, as ``TOLERANCE`` has it.
        macs: Mean per image.
        dense: MACs of the network without gates.
        size: Of the file, in bytes.
        build: That ran it.
    """

    images: int
    gap: float
    macs: float
    dense: int
    size: int
    build: str


def write_file(
    program: Program, model: nn.Module, images: Tensor, path: str | Path
) -> Written:
    """Write a program, load it again, compare it, and put it in place.

    Args:
        program: With its JSON (:func:`fgc_mm.deploy.bundle.meta.file_meta`).
        model: The masked model that it was made of.
        images: (N, C, H, W), preprocessed.
        path: Of the file; until all is well it has another name.

    Raises:
        FGCError: The logits differ by more than 1e-4.
    """
    file = Path(path)
    data = encode(program)
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f'.{file.name}.{os.getpid()}.part')
    try:
        part.write_bytes(data)
        with Model.load(part) as loaded:
            outputs = loaded.run(images.numpy(), decisions=True)
            gap = _gap(outputs[0], model, images)
            _check(gap, len(images), file)
            macs = Classifier(loaded).cost(outputs)[0]
            build = loaded.build
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
    return Written(
        len(images),
        gap,
        float(macs.mean()),
        program.meta['macs']['dense'],
        len(data),
        build,
    )


@torch.no_grad()
def _gap(logits: np.ndarray, model: nn.Module, images: Tensor) -> float:
    wanted = PlainForward(model)(images).numpy()
    found = logits.reshape(wanted.shape)
    difference = np.abs(found - wanted).max()
    # a comparison with nan is false
    return float(difference / max(1.0, np.abs(wanted).max()))


def _check(gap: float, images: int, file: Path) -> None:
    if gap <= TOLERANCE:
        return
    raise FGCError(
        f'the logits of {file.name} differ by {gap:.1e} from those of the '
        f'masked model on {images} images, and {TOLERANCE:.0e} is allowed, so '
        'it is not written; report the config, or export with '
        'tools/export/onnx.py.'
    )
