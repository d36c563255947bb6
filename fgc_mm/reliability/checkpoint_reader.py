"""Reads checkpoints as data, without running code.

Reading a pickle can run any program. ``torch.load`` with ``weights_only=True``
prevents that, but also refuses mmengine's checkpoints, whose ``message_hub``
contains log buffers. This module lists the few additional classes and
functions that mmengine's checkpoints need. The original OpenMMLab packages
have no such list, and the onedl forks fall back to ``weights_only=False``,
which this package never uses. ``checkpoint_loaders.py`` registers loaders
with MMEngine that use the list.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

from fgc_mm.errors import FGCError

Checkpoint = dict[str, Any]
MapLocation = str | torch.device | Callable | dict | None

# Pickles name this class as the owner of a function below. A string replaces
# it, because the class could be called.
_ONE_CYCLE = 'mmengine.optim.scheduler.param_scheduler.OneCycleParamScheduler'


def _known_attribute(owner: object, name: str) -> Callable:
    """``getattr`` for the few functions that mmengine pickles by name.

    These are methods of log buffers and the annealing function of a OneCycle
    scheduler. The real ``getattr``, which the forks allow, would give access
    to any function.
    """
    if owner is HistoryBuffer and name in ('min', 'max', 'mean', 'current'):
        return getattr(HistoryBuffer, name)
    if owner == _ONE_CYCLE and name in ('_annealing_cos', '_annealing_linear'):
        from mmengine.optim.scheduler import OneCycleParamScheduler

        return getattr(OneCycleParamScheduler, name)
    raise FGCError(f'getattr of {name!r}')


def safe_globals() -> list[Callable | tuple[Any, str]]:
    """Allowed classes and functions that are not in torch's own list."""
    rebuild, number = np.ndarray(0).__reduce__()[0], np.float64(0).__reduce__()
    arrays: list[Callable | tuple[Any, str]] = [np.ndarray, np.dtype]
    # numpy 1 and 2 write the same functions under different names; each
    # version must be able to read the files of the other
    for core in ('numpy.core', 'numpy._core'):
        arrays.append((rebuild, f'{core}.multiarray._reconstruct'))
        arrays.append((number[0], f'{core}.multiarray.scalar'))
    dtypes = {type(np.dtype(code)) for code in '?bhilqBHILQefd'}
    return [
        *arrays,
        *dtypes,
        HistoryBuffer,
        (_ONE_CYCLE, _ONE_CYCLE),
        (_known_attribute, 'builtins.getattr'),
    ]


_listeners: list[Callable[[Checkpoint], object]] = []


def call_after_reading(listener: Callable[[Checkpoint], object]) -> None:
    """Registers, once, a function to call with every checkpoint read."""
    if listener not in _listeners:
        _listeners.append(listener)


def read_checkpoint(
    path: str | Path, map_location: MapLocation = 'cpu'
) -> Checkpoint:
    """Reads a checkpoint file of mmengine or of ``torch.save``.

    Args:
        path: The file.
        map_location: As in :func:`torch.load`.

    Returns:
        The contents: a dict that contains tensors, possibly nested.

    Raises:
        FGCError: The file is missing, empty, damaged, not a checkpoint, or
            refers to code, which was not run.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise FGCError(
            f'{path} is not a file: a checkpoint is a file that a training '
            'run saved; check the path.'
        )
    if file.stat().st_size == 0:
        raise FGCError(
            f'{path} is empty (0 bytes): a checkpoint contains weights; save '
            'or download it again.'
        )
    with file.open('rb') as stream:
        return read_stream(stream, str(path), map_location)


def read_stream(
    stream: BinaryIO, name: str, map_location: MapLocation
) -> Checkpoint:
    """Like :func:`read_checkpoint`, for an open file.

    Args:
        stream: At its beginning, and seekable.
        name: Name of the file in messages.
        map_location: As in :func:`torch.load`.
    """
    if map_location is None and not torch.cuda.is_available():
        map_location = 'cpu'
    # added each time, since others may have removed entries from torch's list
    # (the forks do after they have read a file)
    torch.serialization.add_safe_globals(safe_globals())
    try:
        _verify_checksums(stream)
        content = torch.load(
            stream, map_location=map_location, weights_only=True
        )
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a damaged pickle may cause any exception
        raise _read_error(name, error) from error
    checkpoint = _checked(content, name)
    _remove_program(checkpoint)
    for listener in _listeners:
        listener(checkpoint)
    return checkpoint


def _verify_checksums(stream: BinaryIO) -> None:
    """Raises BadZipFile if a byte has changed, which torch.load ignores.

    A checksum of 0 means that torch.save was set not to write checksums.
    """
    if zipfile.is_zipfile(stream):
        with zipfile.ZipFile(stream) as archive:
            for entry in filter(lambda e: e.CRC, archive.infolist()):
                with archive.open(entry) as content:
                    while content.read(1 << 20):
                        pass
    stream.seek(0)


def _read_error(name: str, error: Exception) -> FGCError:
    """The error for a file that torch.load did not read."""
    foreign = re.search(
        r'GLOBAL (\S+)|reduce for unrecognized function (.+)|'
        r'(getattr of \S+)|(TorchScript)',
        str(error),
    )
    if foreign:
        code = next(group for group in foreign.groups() if group)
        return FGCError(
            f'{name} refers to code ({code}), which was not run: a checkpoint '
            'may contain only tensors, numbers, text and the logs of '
            'mmengine; if you trust its source, save its state_dict alone.'
        )
    return FGCError(
        f'{name} cannot be read ({_reason(error)}): a checkpoint is a '
        'complete, unchanged file written by torch.save; save or download '
        'it again.'
    )


def _reason(error: Exception) -> str:
    """The part of torch's message that describes the problem."""
    text = ' '.join(str(error).split())
    if not re.search('[a-z]', text):  # the bare number of an opcode
        return type(error).__name__
    for marker in ('WeightsUnpickler error:', 'PytorchStreamReader'):
        text = text.partition(marker)[2].strip() or text
    return re.split(r' Please | Check the | \(1\) |\. ', text)[0][:120]


def _checked(content: object, name: str) -> Checkpoint:
    """The contents, if they contain weights."""
    if isinstance(content, dict):
        weights = content.get('state_dict', content)
        if isinstance(weights, dict) and _contains_tensor(content):
            return content
    kind = type(content).__name__
    found = f'a {kind}' if kind != 'dict' else 'a dict without weights'
    raise FGCError(
        f'{name} contains {found}: a checkpoint is a dict of weights, as a '
        'training run or torch.save(model.state_dict(), ...) writes it; '
        'check the path.'
    )


def _remove_program(checkpoint: Checkpoint) -> None:
    """Remove a text that mmengine runs as Python when a run is resumed.

    Before MMEngine, checkpoints had their config there, of which only the
    number of GPUs is compared.
    """
    meta = checkpoint.get('meta')
    if isinstance(meta, dict):
        meta.pop('config', None)


def _contains_tensor(content: object, depth: int = 3) -> bool:
    if isinstance(content, torch.Tensor):
        return True
    if not isinstance(content, dict) or depth == 0:
        return False
    return any(
        _contains_tensor(value, depth - 1) for value in content.values()
    )
