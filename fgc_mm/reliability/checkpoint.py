"""Checkpoints are read as data, never as code.

A pickle can run any program while it is read. ``torch.load`` with
``weights_only=True`` refuses that, but then it refuses mmengine's checkpoints
too: their ``message_hub`` holds log buffers. Here is the short list of what
those need. The originals know no such list, and the onedl forks fall back to
``weights_only=False``; we never do. ``checkpoint_loaders.py`` has MMEngine
read with it.
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

# What pickle writes for a class that is only the owner of a function below. A
# text stands for it: unlike the class, it cannot be called or filled.
_ONE_CYCLE = 'mmengine.optim.scheduler.param_scheduler.OneCycleParamScheduler'


def _known_attribute(owner: object, name: str) -> Callable:
    """``getattr`` for the few functions that mmengine pickles by name.

    Every log buffer carries its methods, and OneCycle schedulers their curve.
    The real ``getattr`` (the forks allow it) would reach any code at all.
    """
    if owner is HistoryBuffer and name in ('min', 'max', 'mean', 'current'):
        return getattr(HistoryBuffer, name)
    if owner == _ONE_CYCLE and name in ('_annealing_cos', '_annealing_linear'):
        from mmengine.optim.scheduler import OneCycleParamScheduler

        return getattr(OneCycleParamScheduler, name)
    raise FGCError(f'getattr of {name!r}')


def safe_globals() -> list[Callable | tuple[Any, str]]:
    """All that a checkpoint of mmengine may name, beside torch's own list."""
    rebuild, number = np.ndarray(0).__reduce__()[0], np.float64(0).__reduce__()
    arrays: list[Callable | tuple[Any, str]] = [np.ndarray, np.dtype]
    # numpy 1 and 2 write the same functions under two names; either version
    # shall read the files of the other.
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
    """Calls a function with every checkpoint that is read from now on.

    Args:
        listener: Called with the checkpoint; added once.
    """
    if listener not in _listeners:
        _listeners.append(listener)


def read_checkpoint(
    path: str | Path, map_location: MapLocation = 'cpu'
) -> Checkpoint:
    """Reads a checkpoint file, of mmengine or any plain ``torch.save``.

    Args:
        path: The file.
        map_location: As in :func:`torch.load`.

    Returns:
        What the file holds: a dict with a tensor in it somewhere.

    Raises:
        FGCError: The file is missing, empty, damaged, not a checkpoint, or
            asks to run code. Nothing of it was run.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise FGCError(
            f'{path} is not a file: a checkpoint is a file that a training '
            'run saved; check the path.'
        )
    if file.stat().st_size == 0:
        raise FGCError(
            f'{path} is empty (0 bytes): a checkpoint holds weights; save or '
            'download it again.'
        )
    with file.open('rb') as stream:
        return read_stream(stream, str(path), map_location)


def read_stream(
    stream: BinaryIO, name: str, map_location: MapLocation
) -> Checkpoint:
    """As :func:`read_checkpoint`, of an open file.

    Args:
        stream: At its beginning; it can be read more than once.
        name: What messages call it.
        map_location: As in :func:`torch.load`.
    """
    if map_location is None and not torch.cuda.is_available():
        map_location = 'cpu'
    # Each time, for others may have taken entries of ours off torch's list
    # (the forks do when they have read a file).
    torch.serialization.add_safe_globals(safe_globals())
    try:
        _verify_checksums(stream)
        content = torch.load(
            stream, map_location=map_location, weights_only=True
        )
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever a damaged pickle provokes
        raise _refusal(name, error) from error
    checkpoint = _checked(content, name)
    for listener in _listeners:
        listener(checkpoint)
    return checkpoint


def _verify_checksums(stream: BinaryIO) -> None:
    """Raises BadZipFile where a byte has changed, which torch.load ignores.

    A checksum of 0 means that torch.save was told to write none.
    """
    if zipfile.is_zipfile(stream):
        with zipfile.ZipFile(stream) as archive:
            for entry in filter(lambda e: e.CRC, archive.infolist()):
                with archive.open(entry) as content:
                    while content.read(1 << 20):
                        pass
    stream.seek(0)


def _refusal(name: str, error: Exception) -> FGCError:
    """The sentence for a file that torch.load would not read."""
    foreign = re.search(
        r'GLOBAL (\S+)|reduce for unrecognized function (.+)|'
        r'(getattr of \S+)|(TorchScript)',
        str(error),
    )
    if foreign:
        code = next(group for group in foreign.groups() if group)
        return FGCError(
            f'{name} asks to run code ({code}): a checkpoint may hold only '
            'tensors, numbers, texts and the logs of mmengine, so nothing of '
            'it was run; if you trust its source, save its state_dict alone.'
        )
    return FGCError(
        f'{name} cannot be read ({_reason(error)}): a checkpoint is a file '
        'that torch.save wrote, whole and unchanged; save or download it '
        'again.'
    )


def _reason(error: Exception) -> str:
    """The part of torch's message that says what is wrong with the file."""
    text = ' '.join(str(error).split())
    if not re.search('[a-z]', text):  # the bare number of an opcode
        return type(error).__name__
    for marker in ('WeightsUnpickler error:', 'PytorchStreamReader'):
        text = text.partition(marker)[2].strip() or text
    return re.split(r' Please | Check the | \(1\) |\. ', text)[0][:120]


def _checked(content: object, name: str) -> Checkpoint:
    if isinstance(content, dict):
        weights = content.get('state_dict', content)
        if isinstance(weights, dict) and _holds_tensor(content):
            return content
    kind = type(content).__name__
    found = f'a {kind}' if kind != 'dict' else 'a dict without weights'
    raise FGCError(
        f'{name} holds {found}: a checkpoint is a dict of weights, as a '
        'training run or torch.save(model.state_dict(), ...) writes it; '
        'check the path.'
    )


def _holds_tensor(content: object, depth: int = 3) -> bool:
    if isinstance(content, torch.Tensor):
        return True
    if not isinstance(content, dict) or depth == 0:
        return False
    return any(_holds_tensor(value, depth - 1) for value in content.values())
