"""Counts the labels of a data set and compares them with the head."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset
from mmpretrain.models.heads import MultiTaskHead
from torch import nn

from fgc_mm.errors import FGCError

# labels of larger image folders are not read: this takes seconds, and they are
# the numbers of the folders
MANY_IMAGES = 300_000


@dataclass
class LabelCounts:
    """The labels of a data set.

    Attributes:
        counts: Images of each label, by task; the only task is ``''``.
        first: The first image of each label.
        unlabelled: The first image without a label.
    """

    counts: dict[str, Counter] = field(default_factory=dict)
    first: dict[tuple[str, int], int] = field(default_factory=dict)
    unlabelled: int | None = None

    @classmethod
    def of(cls, dataset: BaseDataset) -> LabelCounts:
        """Read all labels; empty for a data set without an image list."""
        found = cls()
        read = _reader(dataset)
        many = hasattr(dataset, 'folder_to_idx') and len(dataset) > MANY_IMAGES
        if read is None or many:
            return found
        for index in range(len(dataset)):
            found._count(index, read(index).get('gt_label'))
        return found

    def check(self, name: str, head: nn.Module, classes: int | None) -> None:
        """Compare with the head; ``name`` is the data set's in messages.

        Args:
            classes: Number of class names of the data set.

        Raises:
            FGCError: A label is not a class of the head or has no name, or
                only some images have a label.
        """
        if self.unlabelled is not None and self.counts:
            raise FGCError(
                f'image {self.unlabelled} of the {name} set has no label, but '
                'others have: each image needs one; correct its annotation.'
            )
        limits = class_numbers(head)
        for task, counts in self.counts.items():
            of_task = f' of task {task!r}' if task else ''
            limit = limits.get(task)
            self._limit(name, task, limit, (
                f'the head{of_task} has {limit} classes; set num_classes='
                f'{max(counts) + 1} there'
            ))  # fmt: skip
            if not task:
                self._limit(name, task, classes, (
                    f'the data set has {classes} class names; correct classes='
                ))  # fmt: skip

    def _limit(self, name: str, task: str, limit: Any, why: str) -> None:
        if not isinstance(limit, int):
            return
        for label in sorted(self.counts[task]):
            if not 0 <= label < limit:
                raise FGCError(
                    f'image {self.first[task, label]} of the {name} set has '
                    f'the label {label}, which is outside 0 to {limit - 1}: '
                    f'{why}, or correct the labels.'
                )

    def _count(self, index: int, label: Any) -> None:
        tasks = label if isinstance(label, dict) else {'': label}
        for task, value in tasks.items():
            if value is None:
                if self.unlabelled is None:
                    self.unlabelled = index
                continue
            counts = self.counts.setdefault(task, Counter())
            single = isinstance(value, int)
            for one in (value,) if single else np.ravel(value).tolist():
                counts[one] += 1
                self.first.setdefault((task, one), index)


def class_numbers(head: nn.Module) -> dict[str, int | None]:
    """Numbers of classes of a head, by task; the only task is ``''``."""
    if isinstance(head, MultiTaskHead):
        heads = head.task_heads.items()
        return {task: getattr(h, 'num_classes', None) for task, h in heads}
    return {'': getattr(head, 'num_classes', None)}


def _reader(dataset: BaseDataset) -> Any:
    if hasattr(dataset, 'get_data_info'):
        return dataset.get_data_info
    listed = getattr(dataset, 'data_list', None)
    return listed.__getitem__ if isinstance(listed, list) else None
