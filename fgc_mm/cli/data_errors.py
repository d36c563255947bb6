"""Messages for errors of upstream's data sets that a user can fix."""

import re
from pathlib import PurePath
from traceback import walk_tb
from urllib.error import URLError

FOLDERS = re.compile(r'number of subfolders \((\d+)\).*classes \((\d+)\)')
SIZES = re.compile(r'stack expects each tensor to be equal size, but got (.*)')


def data_sentence(error: BaseException) -> str | None:
    """The message for an error of a data set; None for other errors."""
    if isinstance(error, URLError):
        return _download_sentence(error)
    text = ' '.join(str(error).split())
    folders, sizes = FOLDERS.search(text), SIZES.search(text)
    if folders:
        found, named = folders.groups()
        return (
            f'a data set has {found} class folders and {named} classes: it '
            'treats every folder, also a hidden one, as a class; remove '
            'folders that are not classes (.ipynb_checkpoints), correct '
            "classes=, or use type='fgc_mm.ImageFolder'."
        )
    if sizes:
        return (
            f'the images of a batch differ in size ({sizes[1]:.80}), but the '
            "pipeline must give one size; add dict(type='Resize', scale=...) "
            'or a crop to it.'
        )
    if isinstance(error, ValueError) and _raised_in(error, 'custom.py'):
        return (
            f'a line of an annotation file cannot be read ({text}): each line '
            "must be an image's path, a space and the number of its class, "
            "and none may be blank; correct it, or use type='fgc_mm."
            "ImageFolder'."
        )
    if isinstance(error, RuntimeError) and text.startswith('Found 0 files'):
        return f'{text}: check data_root and data_prefix of the data set.'
    return None


def _download_sentence(error: URLError) -> str | None:
    """The message for a missing data set, with the folder for its file."""
    for frame, _ in walk_tb(error.__traceback__):  # the outermost first
        dataset = frame.f_locals.get('self')
        folder = (getattr(dataset, 'data_prefix', None) or {}).get('root')
        address = getattr(dataset, 'url', getattr(dataset, 'url_prefix', ''))
        if folder and address:
            files = getattr(dataset, 'filename', 'its files')
            return (
                f'{type(dataset).__name__} is not in {folder}, and {address} '
                f'cannot be reached ({error.reason}): put {files} into that '
                'folder, or begin with fgc_resnet20_digits.py, which needs '
                'no download.'
            )
    return None


def _raised_in(error: BaseException, file: str) -> bool:
    """Whether the error was raised in a file of mmpretrain's data sets."""
    files = [f.f_code.co_filename for f, _ in walk_tb(error.__traceback__)]
    parts = PurePath(files[-1]).parts if files else ()
    return parts[-3:] == ('mmpretrain', 'datasets', file)
