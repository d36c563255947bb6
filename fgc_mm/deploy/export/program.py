"""torch's exported program of a classifier."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from fgc_mm.deploy.export.plain_forward import PlainForward
from fgc_mm.errors import FGCError
from fgc_mm.sites.eval_mode import eval_mode

LARGEST_BATCH = 4096
STYLES = re.compile(r'\x1b\[[0-9;]*m')  # colours of a terminal


def export_program(
    model: nn.Module, images: Tensor
) -> torch.export.ExportedProgram:
    """``torch.export`` of a classifier, for batches of up to 4096 images.

    Args:
        model: Gated (masked) or plain.
        images: (N, 3, H, W); fixes the image size.

    Raises:
        FGCError: Its forward code cannot be exported, or fixes the batch
            size, or the images have another dtype than the weights.
    """
    if len(images) == 1:  # torch.export specialises a size of 1
        images = images.repeat(2, 1, 1, 1)
    batch = torch.export.Dim('batch', min=1, max=LARGEST_BATCH)
    with eval_mode(model), explain_errors(model), torch.no_grad():
        plain = PlainForward(model)
        plain(images[:1])  # torch.export accepts another dtype of images
        return torch.export.export(
            plain, (images,), dynamic_shapes=({0: batch},), strict=False
        )


@contextmanager
def explain_errors(model: nn.Module) -> Iterator[None]:
    """Replace an error of an exporter by one that names the reason."""
    try:
        yield
    except FGCError:
        raise
    except Exception as error:  # torch has dozens of types
        inner = getattr(getattr(model, 'backbone', model), 'backbone', model)
        name = type(inner).__name__
        causes = _causes(error)
        text = STYLES.sub('', str(causes[-1])).strip()
        first = text.partition('\n')[0][:160]
        if first.startswith('Constraints violated'):
            raise FGCError(
                f'{name} cannot be exported for any number of images: its '
                'forward code uses the batch size as a Python number, like '
                'len(x); write x.shape[0] there.'
            ) from error
        if any(type(cause).__name__ == 'ConversionError' for cause in causes):
            raise FGCError(
                f'{name} cannot be exported to ONNX ({first}): torch.onnx '
                'does not have one of its operations; use another torch or '
                'another operation, or torch.export.'
            ) from error
        raise FGCError(
            f'{name} cannot be exported ({first}): its forward code needs '
            'values that are known at run time only; export another '
            'backbone, or change that line.'
        ) from error


def _causes(error: BaseException) -> list[BaseException]:
    """An error and what caused it, the first cause last."""
    causes = [error]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    return causes
