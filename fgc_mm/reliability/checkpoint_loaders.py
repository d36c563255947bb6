"""Checkpoint loaders for MMEngine, one per URL scheme, that run no code.

Their names begin with ``load_from_``: mmengine logs what follows.
"""

from __future__ import annotations

import hashlib
import io
import re
import sys
from pathlib import Path, PurePosixPath
from urllib.parse import urlparse

import torch
from mmengine.dist import barrier, get_rank
from mmengine.fileio import get_file_backend
from mmengine.runner import checkpoint as mmengine_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader

from fgc_mm.errors import FGCError
from fgc_mm.reliability.checkpoint_reader import (
    Checkpoint,
    MapLocation,
    read_checkpoint,
    read_stream,
    safe_globals,
)


def _host(map_location: MapLocation) -> MapLocation:
    """The CPU instead of a device.

    A resumed run would load to its GPU. But every tensor is copied into an
    existing one anyway, and unsharded memory banks may not fit on the GPU.
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
    barrier()  # others find the file, or download it on their machine
    return read_checkpoint(_download(filename), _host(map_location))


def _download(url: str) -> Path:
    name = PurePosixPath(urlparse(url).path).name
    folder = Path(torch.hub.get_dir(), 'checkpoints')
    # published files have a hash of their content in their name, where torch
    # looks for them; others, as of two runs, may share a name
    if not re.search(r'-[0-9a-f]{8,}\.', name):
        folder /= hashlib.sha256(url.encode()).hexdigest()[:16]
    file = folder / name
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            # writes a temporary file and renames it
            torch.hub.download_url_to_file(
                url, str(file), progress=sys.stderr.isatty()
            )
        except (OSError, ValueError) as error:
            raise FGCError(
                f'{url} cannot be downloaded ({error}): a checkpoint is a '
                'file or a URL that can be reached; check the address and '
                'the network.'
            ) from error
    return file


def _load_named(
    urls: dict[str, str], filename: str, map_location: MapLocation
) -> Checkpoint:
    """A model of a published list, which has its URL or a local file."""
    name = filename.partition('://')[2]
    if name not in urls:
        raise FGCError(
            f"{filename} is unknown: mmengine's lists of published models "
            f'have no {name!r}; give a file or a URL.'
        )
    return CheckpointLoader.load_checkpoint(urls[name], map_location)


def load_from_torchvision(
    filename: str, map_location: MapLocation = None
) -> Checkpoint:
    """torchvision://NAME: weights of torchvision."""
    urls = mmengine_checkpoint.get_torchvision_models()
    return _load_named(urls, filename, map_location)


def load_from_openmmlab(
    filename: str, map_location: MapLocation = None
) -> Checkpoint:
    """open-mmlab://NAME, from mmengine's list or that of the user."""
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
        return read_stream(stream, filename, _host(map_location))


def load_from_pavi(
    filename: str, map_location: MapLocation = None
) -> Checkpoint:
    """pavi:// is refused: its client is not public, so it is untested."""
    del map_location
    raise FGCError(
        f'{filename} cannot be loaded: there is no safe loader for the pavi '
        'scheme; download the file and give its path.'
    )


def register_safe_loader() -> None:
    """Replaces mmengine's loaders of all schemes by those of this module.

    ``load_from``, ``--resume``, ``init_cfg`` and mmpretrain's ``get_model``
    use these loaders. Calling it again changes nothing.
    """
    torch.serialization.add_safe_globals(safe_globals())
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
