"""Exporting files: ONNX, and torch's exported program."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fgc_mm.deploy.export.gathered import gathered
from fgc_mm.deploy.export.plain_forward import PlainForward
from fgc_mm.errors import FGCError

OPSET = 18
LARGEST_BATCH = 4096
TOLERANCE = 1e-4  # relative to the largest logit, or to 1 if that is larger
STYLES = re.compile(r'\x1b\[[0-9;]*m')  # colours of a terminal
ONNX_PACKAGES = ('onnx', 'onnxscript', 'onnxruntime')


def require_onnx() -> None:
    """Raise FGCError unless the packages of the extra are installed."""
    for name in ONNX_PACKAGES:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise FGCError(
                f'{name} cannot be imported ({error}), but ONNX needs it; '
                "install the extra: pip install 'fgc_mm[export]'."
            ) from error


def export_program(
    model: nn.Module, images: Tensor
) -> torch.export.ExportedProgram:
    """``torch.export`` of a classifier, for any batch size.

    Args:
        model: Gated (masked) or plain, in evaluation.
        images: (N, 3, H, W); fixes the image size.

    Raises:
        FGCError: Its forward code cannot be exported, or fixes the batch
            size.
    """
    plain = PlainForward(model)
    if len(images) == 1:  # torch.export specialises a size of 1
        images = images.repeat(2, 1, 1, 1)
    batch = torch.export.Dim('batch', min=1, max=LARGEST_BATCH)
    with _explained(model), torch.no_grad():
        return torch.export.export(
            plain, (images,), dynamic_shapes=({0: batch},), strict=False
        )


def export_onnx(model: nn.Module, images: Tensor, file: str | Path) -> None:
    """ONNX of a classifier: opset 18, any batch size, with masks applied.

    Args:
        model: Gated (masked) or plain, in evaluation.
        images: (N, 3, H, W); fixes the image size.
        file: Written to a temporary name, then renamed.

    Raises:
        FGCError: The extra ``[export]`` is missing, or the forward code
            cannot be exported, or fixes the batch size.
    """
    require_onnx()
    # captured here, since torch.onnx.export would silently fix a batch size
    # that cannot be dynamic
    _write(model, export_program(model, images), images, file)


def export_gathered_onnx(
    model: nn.Module, images: Tensor, file: str | Path
) -> dict[str, str]:
    """ONNX that computes only open channels; batch 1.

    Args:
        model: Gated, in evaluation.
        images: (N, 3, H, W); the first one is used for a check, and fixes
            the size.
        file: Written to a temporary name, then renamed.

    Returns:
        What is gathered at every site, see :func:`gathered`.

    Raises:
        FGCError: As :func:`export_onnx` and :func:`gathered`.
    """
    require_onnx()
    gathered_model, plan = gathered(model, images[:1])
    # avoids torch's choice of a conv, which needs the unknown sizes
    with torch.backends.mkldnn.flags(enabled=False):
        _write(model, PlainForward(gathered_model), images[:1], file)
    return plan


def _write(
    model: nn.Module,
    plain: nn.Module | torch.export.ExportedProgram,
    images: Tensor,
    file: str | Path,
) -> None:
    with _explained(model), torch.no_grad():
        program: Any = torch.onnx.export(
            plain,
            (images,),
            input_names=['images'],
            output_names=['logits'],
            opset_version=OPSET,
            custom_translation_table=_translations(),
            dynamo=True,
            verbose=False,
        )
    file = Path(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f'.{file.stem}.{os.getpid()}.part.onnx')
    try:
        program.save(str(part), external_data=False)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def _translations() -> dict[Any, Callable]:
    """ONNX of operations that torch.onnx does not translate."""
    from onnxscript import opset18

    op: Any = opset18

    def stable_sort(
        x: Any, *, stable: bool = True, dim: int = -1, descending: bool = False
    ) -> Any:
        del stable  # TopK takes the lower index first for ties
        size = op.Gather(op.Shape(x), op.Constant(value_ints=[dim]))
        return op.TopK(x, size, axis=dim, largest=int(descending))

    return {torch.ops.aten.sort.stable: stable_sort}


@contextmanager
def _explained(model: nn.Module) -> Iterator[None]:
    """Make an error of an exporter one that names its reason."""
    try:
        yield
    except Exception as error:  # torch has dozens of types
        inner = getattr(getattr(model, 'backbone', model), 'backbone', model)
        name = type(inner).__name__
        causes = _causes(error)
        first = (
            STYLES.sub('', str(causes[-1])).strip().partition('\n')[0][:160]
        )
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


def onnx_logits(
    file: str | Path, threads: int | None = None
) -> Callable[[Tensor], Tensor]:
    """A function that runs a file in ONNX Runtime on the CPU.

    Args:
        file: Written by :func:`export_onnx`.
        threads: Default: as many as torch uses.

    Raises:
        FGCError: The extra ``[export]`` is missing.
    """
    require_onnx()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    options.log_severity_level = 3
    # otherwise its threads spin for milliseconds after every run, on cores
    # that what is timed next needs
    options.add_session_config_entry('session.force_spinning_stop', '1')
    session = onnxruntime.InferenceSession(
        str(file), options, providers=['CPUExecutionProvider']
    )

    def run(images: Tensor) -> Tensor:
        (logits,) = session.run(None, {'images': images.numpy()})
        return torch.from_numpy(logits)

    return run


@torch.no_grad()
def largest_difference(
    wanted: Callable[[Tensor], Tensor],
    got: Callable[[Tensor], Tensor],
    batches: Sequence[Tensor],
) -> float:
    """Largest difference of logits, relative as for ``TOLERANCE``."""
    gap, scale = 0.0, 1.0
    for batch in batches:
        own = wanted(batch)
        gap = max(gap, float((own - got(batch)).abs().max()))
        scale = max(scale, float(own.abs().max()))
    return gap / scale


def check_same(gap: float, file: str | Path) -> None:
    """Raise FGCError if an exported file gives other results."""
    if not gap <= TOLERANCE:
        raise FGCError(
            f'the logits of {file} differ by {gap:.1e} from those in torch, '
            f'above {TOLERANCE:g}; do not use the file, and please report '
            'the config.'
        )
