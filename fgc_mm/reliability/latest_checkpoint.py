"""Finds the checkpoint of a work dir from which a run resumes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import inf
from pathlib import Path

from fgc_mm.errors import FGCError
from fgc_mm.reliability.resumable import check_resumable

POINTER = 'last_checkpoint'


def latest_checkpoint(
    work_dir: str | Path,
    out_dir: str | Path | None = None,
    scheduled: bool = False,
) -> tuple[Path | None, list[str]]:
    """The newest checkpoint that is complete.

    mmengine's pointer file (``last_checkpoint``) contains an absolute path,
    which is in another run's folder if the work dir was copied. So the run's
    own folders are searched first, for a file of the name in the pointer and
    then for others; the path in the pointer is used only if there are none.

    Args:
        work_dir: The folder of the run.
        out_dir: As in ``CheckpointHook``, which writes checkpoints to the
            folder ``out_dir/NAME_OF_WORK_DIR``.
        scheduled: Whether the run has parameter schedulers.

    Returns:
        The file (None if there is no checkpoint at all), and an error
        message for each newer file that was skipped.

    Raises:
        FGCError: There are checkpoints, but none can be resumed from.
    """
    folders = own_folders(work_dir, out_dir)
    errors: list[str] = []
    for file in _candidates(folders):
        try:
            check_resumable(file, scheduled)
        except FGCError as error:
            errors.append(str(error))
        else:
            return file, errors
    if errors:
        raise FGCError(errors[0])
    return None, errors


def own_folders(
    work_dir: str | Path, out_dir: str | Path | None = None
) -> list[Path]:
    """The folders that a run writes its checkpoints to."""
    folders = [Path(work_dir)]
    # mmengine writes to an out_dir that is the work dir itself
    if str(out_dir or work_dir) != str(work_dir) and '://' not in str(out_dir):
        folders.insert(0, Path(str(out_dir), Path(work_dir).name))
    return folders


def _candidates(folders: Sequence[Path]) -> list[Path]:
    """The file that the pointer names, then the others, newest first."""
    files = _checkpoints(folders)
    named = _named(folders[-1] / POINTER)
    if named is None:
        return files
    if not files:  # none in the run's folders
        others = _checkpoints([named.parent])
        return [named, *(file for file in others if file != named)]
    same_name = [file for file in files if file.name == named.name]
    # there may be two, after out_dir was changed
    same_name.sort(key=lambda file: file.absolute() != named.absolute())
    return same_name[:1] + [f for f in files if f not in same_name[:1]]


def _checkpoints(folders: Sequence[Path]) -> list[Path]:
    """Newest first, by the numbers in their names; copying changes times.

    Best checkpoints are left out, since they lack the optimizer's state.
    """
    files = [f for folder in folders for f in folder.glob('*.pth')]
    files = [f for f in files if not f.name.startswith('best_')]
    return sorted(files, key=_age, reverse=True)


def _age(file: Path) -> tuple[float, int]:
    # interrupted.pth has no number; it is removed by the next save
    numbers = re.findall(r'\d+', file.stem)
    number = float(numbers[-1]) if numbers else inf
    return number, file.stat().st_mtime_ns


def _named(pointer: Path) -> Path | None:
    try:
        text = pointer.read_text('utf-8').strip()
    except (OSError, UnicodeDecodeError):
        return None
    # empty, or not a path: the pointer was not written completely
    if not text or '\0' in text:
        return None
    return Path(text)
