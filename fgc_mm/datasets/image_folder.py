"""A data set of class folders, or every n-th image of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.fileio import list_from_file
from mmengine.logging import MMLogger
from mmpretrain.datasets import CustomDataset

from fgc_mm.datasets.folder_scan import (
    EXTENSIONS,
    class_folders,
    files_below,
    join,
    name_endings,
)
from fgc_mm.errors import FGCError
from fgc_mm.registry import DATASETS


@DATASETS.register_module()
class ImageFolder(CustomDataset):
    """mmpretrain's ``CustomDataset``, optionally only every n-th image.

    Other differences:

    - Hidden folders and files (``.ipynb_checkpoints``, ``._1.jpg``) are
      ignored.
    - With ``classes=``, the number of a folder is the index of its name in
      that list, so a data set that lacks some of the classes has the same
      numbers as the others. If no folder has one of these names, they are
      titles for the folders in alphabetical order.
    - One warning gives the number of files that are not images.
    - Blank lines of an annotation file are skipped.

    Images are sorted by class, so ``every`` keeps the class proportions.

    Args:
        every: n; 1 for all images.
        extensions: Extensions of image files, or the only one.
        **kwargs: As in ``CustomDataset``, which raises an error for unknown
            ones.

    Raises:
        FGCError: ``every`` is not a whole number of at least 1, there is no
            image, ``classes`` is not a list of distinct names or lacks a
            folder, or the annotation file is not UTF-8 text with paths and
            numbers.
    """

    def __init__(
        self,
        every: int = 1,
        extensions: str | Sequence[str] = EXTENSIONS,
        **kwargs: Any,
    ) -> None:
        if not isinstance(every, int) or every < 1:
            raise FGCError(
                f'every={every!r} of ImageFolder must be a whole number of '
                'at least 1; 10 takes every tenth image.'
            )
        self.every = every
        if isinstance(extensions, str):
            extensions = (extensions,)
        if kwargs.get('classes') is not None:
            kwargs['classes'] = _class_list(kwargs['classes'])
        super().__init__(extensions=extensions, **kwargs)

    def load_data_list(self) -> list[dict]:
        """The chosen images."""
        if self.ann_file and self.with_label:
            found = self._listed()
        elif self.ann_file:
            found = [
                dict(img_path=join(self.img_prefix, name))
                for _, name in self._lines()
            ]
        else:
            found = super().load_data_list()
        return found[:: self.every]

    def _find_samples(self) -> list:
        """Paths below the root, with class numbers if labelled."""
        root = self.img_prefix
        samples: list = []
        skipped: list[str] = []
        if '://' not in root and not Path(root).is_dir():
            raise FGCError(
                f'{root.rstrip("/") or "data_root"} is not a folder, but a '
                'data set has its images there, each class in its own folder; '
                'put them there, or set data_root and data_prefix of the data '
                'set.'
            )
        if not self.with_label:
            samples, skipped = self._split(files_below(root))
        else:
            self.folder_to_idx = self._number(class_folders(root))
            for folder, number in self.folder_to_idx.items():
                images, others = self._split(files_below(root, folder))
                samples += [(image, number) for image in images]
                skipped += others
                if not images:
                    _warn(f'The class {join(root, folder)} has no images.')
        self._report(root, skipped, bool(samples))
        return samples

    def _number(self, folders: list[str]) -> dict[str, int]:
        if self.CLASSES is None:
            self._metainfo['classes'] = tuple(folders)
        names = list(self.CLASSES)
        unknown = [folder for folder in folders if folder not in names]
        if folders and unknown == folders and len(folders) == len(names):
            return dict(zip(folders, range(len(folders))))
        if unknown:
            raise FGCError(
                f'{self.img_prefix} has a folder {unknown[0]!r}, but no such '
                f'class ({len(folders)} folders, {len(names)} classes: '
                f'{", ".join(names[:5])}{", ..." if names[5:] else ""}): '
                'every class folder must be in classes=; correct that list, '
                'or remove the folder.'
            )
        for name in names:
            if names.count(name) > 1:
                raise FGCError(
                    f'classes= of ImageFolder has {name!r} '
                    f'{names.count(name)} times, but each class has a name '
                    'of its own; remove or rename the others.'
                )
        return {folder: names.index(folder) for folder in folders}

    def _split(self, files: list[str]) -> tuple[list[str], list[str]]:
        """Images and other files."""
        parts: tuple[list[str], list[str]] = ([], [])
        for file in files:
            parts[not self.is_valid_file(file)].append(file)
        return parts

    def _report(self, root: str, skipped: list[str], found: bool) -> None:
        known = ', '.join(sorted(self.extensions))
        left_out = name_endings(skipped)
        if not found:
            where = 'class folders of' if self.with_label else 'folder'
            raise FGCError(
                f'there is no image in the {where} {root} '
                f'({left_out or "no file"}): images end in {known}; check '
                'data_root and data_prefix, or give extensions=...'
            )
        if skipped:
            _warn(
                f'{len(skipped)} files below {root} are ignored '
                f'({left_out}): images end in {known}; convert them, or give '
                'extensions=... if OpenCV decodes them.'
            )

    def _listed(self) -> list[dict]:
        """Images and labels of the annotation file."""
        found = []
        for number, line in self._lines():
            *path, label = line.rsplit(maxsplit=1)
            if not path or not label.isdecimal():
                raise FGCError(
                    f'line {number} of {self.ann_file} is {line!r:.80}: each '
                    "line is an image's path, a space and the number of its "
                    'class; correct the line, or set with_label=False.'
                )
            file = join(self.img_prefix, path[0])
            found.append(dict(img_path=file, gt_label=int(label)))
        return found

    def _lines(self) -> list[tuple[int, str]]:
        """Numbered lines of the annotation file that are not blank."""
        lines = enumerate(_text_lines(self.ann_file), start=1)
        return [(n, line.strip()) for n, line in lines if line.strip()]


def _class_list(classes: str | Sequence[Any]) -> list[str]:
    """The names of ``classes``: a list, or a text file with one per line."""
    if isinstance(classes, str):
        names = [line.strip() for line in _text_lines(classes)]
        classes = [name for name in names if name]
    if not isinstance(classes, (list, tuple)):
        raise FGCError(
            f'classes={classes!r} of ImageFolder is a '
            f'{type(classes).__name__}, but each class needs a name; give a '
            'list of names, or a text file with one name per line.'
        )
    return [str(name) for name in classes]


def _text_lines(file: str) -> list[str]:
    """Lines of a UTF-8 file, without the byte order mark of some editors."""
    path = str(Path(file).expanduser()) if '://' not in file else file
    try:
        lines = list_from_file(path)
    except UnicodeDecodeError as error:
        raise FGCError(
            f'{file} is not UTF-8 text ({error.reason} at byte '
            f'{error.start}), but lists of images and classes must be; save '
            'it as UTF-8.'
        ) from error
    return [line.removeprefix('\ufeff') for line in lines]


def _warn(line: str) -> None:
    MMLogger.get_current_instance().warning(line)
