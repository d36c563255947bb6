"""Checks that data sets number their classes in the same way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Sized
from typing import Any

from mmengine.dataset import BaseDataset

from fgc_mm.engine.config_check.label_counts import LabelCounts
from fgc_mm.errors import FGCError

Names = tuple[str, ...]


def class_names(meta: Any) -> Names | None:
    """The class names of a data set or a checkpoint, if it has any."""
    meta = getattr(meta, 'metainfo', meta)
    names = meta.get('classes') if isinstance(meta, dict) else None
    return tuple(map(str, names)) if names else None


def members(dataset: Any) -> Iterator[Any]:
    """The data sets inside wrappers such as ``ConcatDataset``."""
    parts = getattr(dataset, 'datasets', None)
    wrapped = getattr(dataset, 'dataset', None)
    if isinstance(parts, (list, tuple)):
        for part in parts:
            yield from members(part)
    elif wrapped is not None:
        yield from members(wrapped)
    else:
        yield dataset


def compare_members(name: str, dataset: Any) -> list[str | None]:
    """Compare the classes of the data sets inside a data set.

    Returns:
        As :func:`compare_classes`, for each data set after the first.

    Raises:
        FGCError: A class number has different names in two of them.
    """
    first, *others = map(class_names, members(dataset))
    return [
        compare_classes(
            f'the first data set in {name}', first,
            f'data set {number} in it', other,
        )
        for number, other in enumerate(others, 2)
    ]  # fmt: skip


def compare_classes(
    first: str, names: Names | None, second: str, others: Names | None
) -> str | None:
    """Compare the classes of two data sets, number by number.

    Args:
        first, second: Names of the data sets in messages.
        names, others: Their classes.

    Returns:
        A warning if one has additional classes at its end, or if all names
        differ.

    Raises:
        FGCError: A class number has different names in the two.
    """
    if names is None or others is None or names == others:
        return None
    counts = f'{len(names)} and {len(others)} classes'
    differ = [
        n for n, pair in enumerate(zip(names, others)) if len({*pair}) > 1
    ]
    if not differ:
        return f'{first} and {second} have {counts}; the common ones agree.'
    if len(names) == len(others) and not {*names} & {*others}:
        return (
            f'{first} and {second} have different names for all {len(names)} '
            f'classes: {names[0]!r}, ... and {others[0]!r}, ...'
        )
    number = differ[0]
    raise FGCError(
        f'class {number} is {names[number]!r} in {first} and '
        f'{others[number]!r} in {second} ({counts}): all data sets of a model '
        'must number their classes in the same way; give them the same class '
        'folders, or the same list as classes=...'
    )


def compare_with_head(
    name: str, names: Names | None, limit: Any, by_folders: bool
) -> str | None:
    """Compare the number of classes with the head's.

    Args:
        name, names: The data set in messages, and its classes.
        limit: Number of classes of the head, if known.
        by_folders: Whether the data set numbers its folders in alphabetical
            order and the class names of the head are unknown.

    Returns:
        A warning if the head has more classes.

    Raises:
        FGCError: The head has fewer classes; or it has more, so that the
            numbers of the folders may not be its class numbers.
    """
    if names is None or not isinstance(limit, int) or len(names) == limit:
        return None
    shown = _shorten(names)
    if len(names) > limit:
        raise FGCError(
            f'{name} has {len(names)} classes ({shown}) and the head '
            f'{limit}: the head needs an output for every class; remove '
            'folders that are not classes, or set '
            f'num_classes={len(names)} of the head.'
        )
    if by_folders:
        raise FGCError(
            f'{name} has {len(names)} class folders ({shown}) and the head '
            f'{limit} classes: folders are numbered in alphabetical order, '
            'which gives the class numbers of the head only if there is a '
            f'folder for every class; give the data set all {limit} names as '
            'classes=...'
        )
    return (
        f'{name} has {len(names)} classes ({shown}) and the head {limit}: '
        f'there are no images of the other {limit - len(names)}; if that is '
        f'not intended, set num_classes={len(names)} of the head.'
    )


def describe(name: str, dataset: BaseDataset, labels: LabelCounts) -> str:
    """One line: numbers of images, of classes, and of images per class."""
    images = len(dataset) if isinstance(dataset, Sized) else 'any number of'
    line = f'{name} set: {images} images'
    names = class_names(dataset)
    for task, counts in labels.counts.items():
        sizes = counts.values()
        known = len(names) if names and not task else len(counts)
        line += f', {known} classes' + (f' of {task}' if task else '')
        fewest = 0 if known > len(counts) else min(sizes)
        line += f' ({fewest} to {max(sizes)} images each)'
    if not labels.counts and names:
        line += f', {len(names)} classes'
    return f'{line}: {_shorten(names)}' if names else line


def _shorten(names: Sequence[str]) -> str:
    return ', '.join(names[:10]) + (', ...' if names[10:] else '')
