"""Lists class folders and files, without hidden ones."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

import cv2
from mmengine.fileio import LocalBackend, get_file_backend

# the endings of mmpretrain's CustomDataset, and others that OpenCV decodes
_EVERYWHERE = (
    '.jpg', '.jpeg', '.jfif', '.png', '.ppm', '.pgm', '.bmp', '.tif', '.tiff',
    '.webp',
)  # fmt: skip
# decoded since OpenCV 4.11 (the first frame)
_GIF = tuple(int(part) for part in cv2.__version__.split('.')[:2]) >= (4, 11)
EXTENSIONS = (*_EVERYWHERE, *(('.gif',) if _GIF else ()))
# created by notebooks, version control, macOS and network drives
_HIDDEN = ('.', '__MACOSX', '@eaDir')
# of operating systems, at the top of a drive
_SYSTEM = {'lost+found', '$RECYCLE.BIN', 'System Volume Information'}


def class_folders(root: str) -> list[str]:
    """Sorted names of the folders directly below a root, no hidden ones."""
    backend = get_file_backend(root, enable_singleton=True)
    found = backend.list_dir_or_file(root, list_file=False, recursive=False)
    return sorted(filter(_visible, found))


def files_below(root: str, folder: str = '') -> list[str]:
    """Paths of all files in a folder relative to the root, no hidden ones.

    Links to files that do not exist are included, so that reading them raises
    an error.
    """
    backend = get_file_backend(root, enable_singleton=True)
    top = join(root, folder)
    found = backend.list_dir_or_file(top, list_dir=False, recursive=True)
    if isinstance(backend, LocalBackend):
        found = [*found, *_broken_links(top)]
    return [join(folder, file) for file in sorted(filter(_visible, found))]


def _broken_links(top: str) -> Iterator[str]:
    with os.scandir(top) as entries:
        for entry in entries:
            if entry.is_dir():
                for below in _broken_links(entry.path):
                    yield f'{entry.name}/{below}'
            elif entry.is_symlink() and not entry.is_file():
                yield entry.name


def join(root: str, path: str) -> str:
    """A path below a root, as the root's file backend writes it."""
    if not root or not path:
        return root or path
    backend = get_file_backend(root, enable_singleton=True)
    return backend.join_path(root, path)


def name_endings(files: Iterable[str]) -> str:
    """Numbers of files by extension, such as '6 .heic, 1 .txt'."""
    endings = Counter(
        PurePosixPath(file.replace('\\', '/')).suffix.lower() for file in files
    )
    return ', '.join(
        f'{count} {ending or "without ending"}'
        for ending, count in endings.most_common()
    )


def _visible(path: str) -> bool:
    parts = path.replace('\\', '/').split('/')
    return not any(
        part.startswith(_HIDDEN) or part in _SYSTEM for part in parts
    )
