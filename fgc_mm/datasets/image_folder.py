"""Any folder of class folders, or an even share of it."""

from collections.abc import Sequence
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
    """mmpretrain's ``CustomDataset``, of which every n-th image is taken.

    Beside that:

    - Hidden folders and files (``.ipynb_checkpoints``, ``._1.jpg``) are
      neither classes nor images.
    - With ``classes=`` the folders are numbered by their names' places in
      it, so a folder that lacks some of the classes is numbered as the
      others are. Where no folder has one of these names they are titles of
      the folders, in order.
    - Files of another kind are counted in one warning.
    - Blank lines of an annotation file are skipped.

    Images are sorted by class, so each class keeps its share.

    Args:
        every: n; 1 for all images.
        extensions: How the names of images end.
        **kwargs: As in ``CustomDataset``; an unknown one is refused there.

    Raises:
        FGCError: ``every`` is no whole number of at least 1, no image is
            there, a folder is not among ``classes``, or a line of the
            annotation file is no path and number.
    """

    def __init__(
        self,
        every: int = 1,
        extensions: Sequence[str] = EXTENSIONS,
        **kwargs: Any,
    ) -> None:
        if not isinstance(every, int) or every < 1:
            raise FGCError(
                f'every={every!r} of ImageFolder must be a whole number of '
                'at least 1; 10 takes every tenth image.'
            )
        self.every = every
        super().__init__(extensions=extensions, **kwargs)

    def load_data_list(self) -> list[dict]:
        """The chosen images."""
        if self.ann_file and self.with_label:
            found = self._listed()
        elif self.ann_file:
            found = [dict(img_path=self._path(x)) for _, x in self._lines()]
        else:
            found = super().load_data_list()
        return found[:: self.every]

    def _find_samples(self) -> list:
        """Paths below the root; with their classes' numbers, if labelled."""
        root = self.img_prefix
        samples: list = []
        skipped: list[str] = []
        if not self.with_label:
            samples, skipped = self._split(files_below(root))
        else:
            self.folder_to_idx = self._number(class_folders(root))
            for folder, number in self.folder_to_idx.items():
                images, others = self._split(files_below(root, folder))
                samples += [(image, number) for image in images]
                skipped += others
                if not images:
                    _warn(f'{join(root, folder)} is a class without images.')
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
                'every class folder is named in classes=; mend that list, or '
                'remove the folder.'
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
            where = 'class folders of ' if self.with_label else ''
            raise FGCError(
                f'the {where}{root} hold no image ({left_out or "no file"}): '
                f'images end in {known}; check data_root and data_prefix, or '
                'give extensions=...'
            )
        if skipped:
            _warn(
                f'{len(skipped)} files below {root} are left out '
                f'({left_out}): images end in {known}; convert them, or give '
                'extensions=... if OpenCV decodes them.'
            )

    def _listed(self) -> list[dict]:
        """Images and labels of the annotation file."""
        found = []
        for number, line in self._lines():
            *path, label = line.rsplit(maxsplit=1)
            if not path or not label.isdigit():
                raise FGCError(
                    f'line {number} of {self.ann_file} is {line!r:.80}: each '
                    "line is an image's path, a space and the number of its "
                    'class; mend the line, or set with_label=False.'
                )
            place = self._path(path[0])
            found.append(dict(img_path=place, gt_label=int(label)))
        return found

    def _lines(self) -> list[tuple[int, str]]:
        """Numbered lines of the annotation file that are not blank."""
        lines = enumerate(list_from_file(self.ann_file), start=1)
        return [(n, line.strip()) for n, line in lines if line.strip()]

    def _path(self, name: str) -> str:
        return join(self.img_prefix, name)


def _warn(line: str) -> None:
    MMLogger.get_current_instance().warning(line)
