"""ONNX files of classifiers, and their outputs in ONNX Runtime."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fgc_mm.deploy.export.gathered import gathered
from fgc_mm.deploy.export.plain_forward import PlainForward
from fgc_mm.deploy.export.program import explain_errors, export_program
from fgc_mm.errors import FGCError
from fgc_mm.reliability.atomic_file import write_atomically

OPSET = 18
ONNX_PACKAGES = ('onnx', 'onnxscript', 'onnxruntime')
DTYPES = (torch.float32, torch.float16)  # of ONNX Runtime's convs on CPUs


def require_onnx() -> None:
    """Raise FGCError unless the packages of the extra are installed."""
    for name in ONNX_PACKAGES:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise FGCError(
                f'{name} cannot be imported ({error}), but ONNX needs it; '
                f'run `pip install {" ".join(ONNX_PACKAGES)}`.'
            ) from error


def export_onnx(model: nn.Module, images: Tensor, file: str | Path) -> None:
    """ONNX of a classifier: opset 18, any batch size, with masks applied.

    Args:
        model: Gated (masked) or plain.
        images: (N, 3, H, W); fixes the image size.
        file: Written atomically.

    Raises:
        FGCError: The extra ``[export]`` is missing, the weights are neither
            float32 nor float16, or the forward code cannot be exported, or
            fixes the batch size.
    """
    require_onnx()
    _check_dtypes(model)
    # captured here, since torch.onnx.export would silently fix the batch size
    # if it cannot be dynamic
    _write(model, export_program(model, images), images, file)


def export_gathered_onnx(
    model: nn.Module, images: Tensor, file: str | Path
) -> dict[str, str]:
    """ONNX that computes only open channels; batch 1.

    Args:
        model: Gated.
        images: (N, 3, H, W); the first four are used for a check, and fix
            the size.
        file: Written atomically.

    Returns:
        What is gathered at every site, see :func:`gathered`.

    Raises:
        FGCError: As :func:`export_onnx` and :func:`gathered`.
    """
    require_onnx()
    _check_dtypes(model)
    gathered_model, plan = gathered(model, images)
    # avoids torch's choice of a conv, which needs the unknown sizes
    with torch.backends.mkldnn.flags(enabled=False):
        _write(model, PlainForward(gathered_model), images[:1], file)
    return plan


def _check_dtypes(model: nn.Module) -> None:
    for weight in model.parameters():
        if weight.is_floating_point() and weight.dtype not in DTYPES:
            raise FGCError(
                f'the model has weights of {weight.dtype}, for which ONNX '
                'Runtime has no convs on CPUs; give model.float() and '
                'images.float().'
            )


def _write(
    model: nn.Module,
    plain: nn.Module | torch.export.ExportedProgram,
    images: Tensor,
    file: str | Path,
) -> None:
    with explain_errors(model), torch.no_grad():
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
    write_atomically(program.model_proto.SerializeToString(), file)


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
    # otherwise its threads spin for milliseconds after every run, and take
    # cores from the next network that is timed
    options.add_session_config_entry('session.force_spinning_stop', '1')
    session = onnxruntime.InferenceSession(
        str(file), options, providers=['CPUExecutionProvider']
    )

    def run(images: Tensor) -> Tensor:
        (logits,) = session.run(None, {'images': images.numpy()})
        return torch.from_numpy(logits)

    return run
