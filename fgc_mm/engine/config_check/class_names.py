"""Whether data sets number their classes alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.dataset import BaseDataset

from fgc_mm.engine.config_check.label_counts import LabelCounts
from fgc_mm.errors import FGCError

Names = tuple[str, ...]


def class_names(meta: Any) -> Names | None:
    """The classes that a data set or a checkpoint names, if it does."""
    meta = getattr(meta, 'metainfo', meta)
    names = meta.get('classes') if isinstance(meta, dict) else None
    return tuple(map(str, names)) if names else None


def compare_classes(
    first: str, names: Names | None, second: str, others: Names | None
) -> str | None:
    """Compare the classes of two data sets, number by number.

    Args:
        first: What the first is called in messages.
        names: Its classes.
        second: What the second is called.
        others: Its classes.

    Returns:
        What is worth a warning: one has more classes at its end, or all are
        called otherwise.

    Raises:
        FGCError: A number means one class here and another one there.
    """
    if names is None or others is None or names == others:
        return None
    counts = f'{len(names)} and {len(others)} classes'
    differ = [
        n for n, pair in enumerate(zip(names, others)) if len({*pair}) > 1
    ]
    if not differ:
        return f'{first} and {second} have {counts}; the shared ones agree.'
    if len(names) == len(others) and not {*names} & {*others}:
        return (
            f'{first} and {second} call all {len(names)} classes otherwise: '
            f'{names[0]!r}, ... and {others[0]!r}, ...'
        )
    number = differ[0]
    raise FGCError(
        f'class {number} is {names[number]!r} in {first} and '
        f'{others[number]!r} in {second} ({counts}): all data sets of a model '
        'number their classes alike; give them the same class folders, or '
        'the same list as classes=...'
    )


def compare_with_head(
    name: str, names: Names | None, limit: Any, by_folders: bool
) -> str | None:
    """Compare the number of classes with the head's.

    Args:
        name: Of the data set.
        names: Its classes.
        limit: Classes of the head, if it says so.
        by_folders: Whether the data set numbers its own folders and nothing
            is known of the names that the head was trained for.

    Returns:
        What is worth a warning: the head has more.

    Raises:
        FGCError: The head has fewer, or it has more and the numbers of the
            folders are therefore not its own.
    """
    if names is None or not isinstance(limit, int) or len(names) == limit:
        return None
    shown = shorten(names)
    if len(names) > limit:
        raise FGCError(
            f'{name} has {len(names)} classes ({shown}) and the head '
            f'{limit}: every class needs a number of the head; remove the '
            f'folders that are none, or set num_classes={len(names)} of the '
            'head.'
        )
    if by_folders:
        raise FGCError(
            f'{name} has {len(names)} class folders ({shown}) and the head '
            f'{limit} classes: folders that are numbered by themselves fit '
            'only if all are there; give the data set all '
            f'{limit} names as classes=...'
        )
    return (
        f'{name} has {len(names)} classes ({shown}) and the head {limit}: '
        f'nothing teaches the other {limit - len(names)}; where that is not '
        f'meant, set num_classes={len(names)} of the head.'
    )


def describe(name: str, dataset: BaseDataset, labels: LabelCounts) -> str:
    """One line: images, classes, images of each class."""
    line = f'{name} set: {len(dataset)} images'
    names = class_names(dataset)
    for task, counts in labels.counts.items():
        sizes = counts.values()
        known = len(names) if names and not task else len(counts)
        line += f', {known} classes' + (f' of {task}' if task else '')
        fewest = 0 if known > len(counts) else min(sizes)
        line += f' ({fewest} to {max(sizes)} images each)'
    if not labels.counts and names:
        line += f', {len(names)} classes'
    return f'{line}: {shorten(names)}' if names else line


def shorten(names: Sequence[str], most: int = 10) -> str:
    """The first names, in one line."""
    return ', '.join(names[:most]) + (', ...' if len(names) > most else '')
