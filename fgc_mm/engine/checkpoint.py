"""Checkpoints are read as data, never as code.

A pickle can run any program while it is read. ``torch.load`` with
``weights_only=True`` refuses that, but then it refuses mmengine's checkpoints
too: their ``message_hub`` holds log buffers. Here is the short list of what
those need, and a loader for each of mmengine's schemes that reads with it. The
originals know no such list, and the onedl forks fall back to
``weights_only=False``; we never do.
"""

from __future__ import annotations

import io
import re
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO
from urllib.parse import urlparse

import numpy as np
import torch
from mmengine.dist import barrier, get_rank
from mmengine.fileio import get_file_backend
from mmengine.logging import HistoryBuffer
from mmengine.runner import checkpoint as mmengine_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader

from ..errors import FGCError
from ..sites.site_cache import cache_checkpoint_sites

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


def _safe_globals() -> list[Callable | tuple[Any, str]]:
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


def read_checkpoint(
    path: str | Path, map_location: MapLocation = 'cpu'
) -> Checkpoint:
    """Reads a checkpoint file, of mmengine or any plain ``torch.save``.

    Args:
        path: The file.
        map_location: As in :func:`torch.load`.

    Returns:
        What the file holds: a dict with a tensor in it somewhere. The sites
        of gated backbones in it need not be searched again.

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
        return _read(stream, str(path), map_location)


def _read(
    stream: BinaryIO, name: str, map_location: MapLocation
) -> Checkpoint:
    if map_location is None and not torch.cuda.is_available():
        map_location = 'cpu'
    # Each time, for others may have taken entries of ours off torch's list
    # (the forks do when they have read a file).
    torch.serialization.add_safe_globals(_safe_globals())
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
    cache_checkpoint_sites(checkpoint)
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
    weights = content
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


# One loader per scheme. mmengine logs the name without its `load_from_`.


def _host(map_location: MapLocation) -> MapLocation:
    """The CPU in place of a device.

    A resumed run asks for its GPU, but every part of the checkpoint is copied
    into tensors that lie there already, and whole memory banks need not fit.
    """
    chosen = callable(map_location) or isinstance(map_location, dict)
    return map_location if chosen else 'cpu'


def load_from_local(
    filename: str, map_location: MapLocation = None
) -> Checkpoint:
    """A file on this machine, loaded to the CPU."""
    return read_checkpoint(filename, _host(map_location))


def load_from_http(
    filename: str, map_location: MapLocation = None
) -> Checkpoint:
    """A URL, downloaded once into torch's cache."""
    if get_rank() == 0:
        _download(filename)
    barrier()  # the other processes find the file, or are on another machine
    return read_checkpoint(_download(filename), _host(map_location))


def _download(url: str) -> Path:
    name = PurePosixPath(urlparse(url).path).name
    file = Path(torch.hub.get_dir(), 'checkpoints', name)
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            # Writes aside and renames, so a broken download leaves nothing.
            torch.hub.download_url_to_file(
                url, str(file), progress=sys.stderr.isatty()
            )
        except (OSError, ValueError) as error:
            raise FGCError(
                f'{url} cannot be downloaded ({error}): a checkpoint is a '
                'file or a URL that answers; check the address and the '
                'network.'
            ) from error
    return file


def _load_named(
    urls: dict[str, str], filename: str, map_location: MapLocation
) -> Checkpoint:
    """A model of a published list, which gives its URL or a local file."""
    name = filename.partition('://')[2]
    if name not in urls:
        raise FGCError(
            f'{filename} is unknown: the published lists of mmengine hold no '
            f'{name!r}; give a file or a URL.'
        )
    return CheckpointLoader.load_checkpoint(urls[name], map_location)


def load_from_torchvision(
    filename: str, map_location: MapLocation = None
) -> Checkpoint:
    """torchvision://resnet50, as mmengine names torchvision's weights."""
    urls = mmengine_checkpoint.get_torchvision_models()
    return _load_named(urls, filename, map_location)


def load_from_openmmlab(
    filename: str, map_location: MapLocation = None
) -> Checkpoint:
    """open-mmlab://NAME, from mmengine's list or the user's own."""
    urls = dict(mmengine_checkpoint.get_external_models())
    for old, new in mmengine_checkpoint.get_deprecated_model_names().items():
        urls.setdefault(old, urls.get(new, new))
    home = mmengine_checkpoint._get_mmengine_home()
    urls = {
        name: url if '://' in url else str(Path(home, url))
        for name, url in urls.items()
    }
    return _load_named(urls, filename, map_location)


def load_from_mmcls(
    filename: str, map_location: MapLocation = None
) -> Checkpoint:
    """mmcls://NAME: the backbone of a published classifier."""
    urls = mmengine_checkpoint.get_mmcls_models()
    checkpoint = _load_named(urls, filename, map_location)
    weights = checkpoint.get('state_dict', checkpoint)
    backbone = {
        key.removeprefix('backbone.'): value
        for key, value in weights.items()
        if key.startswith('backbone.')
    }
    return dict(state_dict=backbone)


def load_from_ceph(
    filename: str, map_location: MapLocation = None
) -> Checkpoint:
    """s3:// and petrel://, through mmengine's storage backend."""
    backend = get_file_backend(filename, backend_args={'backend': 'petrel'})
    with io.BytesIO(backend.get(filename)) as stream:
        return _read(stream, filename, _host(map_location))


def load_from_pavi(
    filename: str, map_location: MapLocation = None
) -> Checkpoint:
    """pavi:// is refused: its client is not public, so nobody can test it."""
    del map_location
    raise FGCError(
        f'{filename} is out of reach: the pavi scheme has no safe loader; '
        'download the file and give its path.'
    )


def register_safe_loader() -> None:
    """Puts our loaders in the place of mmengine's, for every scheme it has.

    ``load_from``, ``--resume``, ``init_cfg`` and mmpretrain's ``get_model``
    all go through these. Calling it again changes nothing.
    """
    torch.serialization.add_safe_globals(_safe_globals())
    loaders = {
        load_from_local: [''],
        load_from_http: ['http://', 'https://'],
        load_from_torchvision: ['modelzoo://', 'torchvision://'],
        load_from_openmmlab: ['open-mmlab://', 'openmmlab://'],
        load_from_mmcls: ['mmcls://'],
        load_from_ceph: [r'(\S+\:)?s3://', r'(\S+\:)?petrel://'],
        load_from_pavi: ['pavi://'],
    }
    for loader, prefixes in loaders.items():
        CheckpointLoader.register_scheme(prefixes, loader, force=True)


register_safe_loader()
