"""MMEngine's checkpoint loaders, one per scheme, that read data only.

mmengine logs the name of a loader without its ``load_from_``.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path, PurePosixPath
from urllib.parse import urlparse

import torch
from mmengine.dist import barrier, get_rank
from mmengine.fileio import get_file_backend
from mmengine.runner import checkpoint as mmengine_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader

from fgc_mm.errors import FGCError
from fgc_mm.reliability.checkpoint import (
    Checkpoint,
    MapLocation,
    read_checkpoint,
    read_stream,
    safe_globals,
)


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
        return read_stream(stream, filename, _host(map_location))


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
