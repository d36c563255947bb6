"""A hash of everything that a stored pass depends on."""

import hashlib
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config

FORMAT = 2  # of the stored arrays; a pass of another format is not reused
READ = ('model', 'data_preprocessor', 'default_scope')
BLOCK = 2**20


def content_key(
    cfg: Config, checkpoint: str | Path, dataset: Any, indices: Sequence[int]
) -> str:
    """64 hexadecimal digits that depend on everything a pass reads.

    Args:
        cfg: The config; model and loading of images are included.
        checkpoint: A file; all its bytes are included.
        dataset: Class names, labels, pixels in memory, and paths, sizes and
            modification times of files are included; a data set without
            ``get_data_info`` gets a new key every time.
        indices: Indices of the images of the pass.
    """
    parts = [str(FORMAT), torch.__version__, file_digest(checkpoint)]
    parts += [repr(_plain(cfg.get(name))) for name in READ]
    parts.append(repr(_plain(cfg.test_dataloader.get('dataset'))))
    parts.append(repr(getattr(dataset, 'metainfo', None)))  # class names
    parts.append(hashlib.sha256(repr(list(indices)).encode()).hexdigest())
    digest = hashlib.sha256('\n'.join(parts).encode())
    for part in _dataset_parts(dataset, indices):
        digest.update(part)
    return digest.hexdigest()


def file_digest(path: str | Path) -> str:
    """SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with Path(path).open('rb') as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _plain(node: Any) -> Any:
    return node.to_dict() if hasattr(node, 'to_dict') else node


def _dataset_parts(dataset: Any, indices: Sequence[int]) -> Iterable[bytes]:
    describe = getattr(dataset, 'get_data_info', None)
    if describe is None:
        yield uuid.uuid4().bytes
        return
    for index in indices:
        for name, value in sorted(describe(index).items()):
            yield name.encode()
            yield from _value_parts(name, value)


def _value_parts(name: str, value: Any) -> Iterable[bytes]:
    if isinstance(value, (np.ndarray, torch.Tensor)):
        array = np.ascontiguousarray(value)
        yield f'{array.shape} {array.dtype}'.encode()
        yield array.tobytes()
        return
    yield repr(value).encode()
    if name == 'img_path' and Path(str(value)).is_file():
        found = Path(value).stat()
        yield f'{found.st_size} {found.st_mtime_ns}'.encode()
