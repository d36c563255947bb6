"""Which checkpoint of a work dir a run goes on from."""

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
    """The newest checkpoint that is whole.

    The pointer file names it by an absolute path, which leads to another
    run's folder once the work dir was copied or moved. So its own folders
    come first: what the pointer names there, then their other files, and
    only where they have none the path as it is written.

    Args:
        work_dir: The folder of the run.
        out_dir: As in ``CheckpointHook``, where checkpoints go to a folder
            of the work dir's name in it.
        scheduled: Whether the run has parameter schedulers.

    Returns:
        The file (None if there is no checkpoint at all), and a sentence for
        each newer file that was passed over.

    Raises:
        FGCError: There are checkpoints, and none can be resumed from.
    """
    folders = own_folders(work_dir, out_dir)
    refusals: list[str] = []
    for file in _candidates(folders):
        try:
            check_resumable(file, scheduled)
        except FGCError as error:
            refusals.append(str(error))
        else:
            return file, refusals
    if refusals:
        raise FGCError(refusals[0])
    return None, refusals


def own_folders(
    work_dir: str | Path, out_dir: str | Path | None = None
) -> list[Path]:
    """The folders that a run writes its checkpoints to."""
    folders = [Path(work_dir)]
    if out_dir is not None and '://' not in str(out_dir):
        folders.insert(0, Path(out_dir, Path(work_dir).name))
    return folders


def _candidates(folders: Sequence[Path]) -> list[Path]:
    """The one that the pointer names, then the others, newest first."""
    files = _checkpoints(folders)
    named = _named(folders[-1] / POINTER)
    if named is None:
        return files
    if not files:  # the run has none of its own
        others = _checkpoints([named.parent])
        return [named, *(file for file in others if file != named)]
    same_name = [file for file in files if file.name == named.name]
    # two of them where the run began to write elsewhere
    same_name.sort(key=lambda file: file.absolute() != named.absolute())
    return same_name[:1] + [f for f in files if f not in same_name[:1]]


def _checkpoints(folders: Sequence[Path]) -> list[Path]:
    """Newest first, by the numbers in their names: a copy changes times.

    The best ones are left out: they are saved without their optimizer.
    """
    files = [f for folder in folders for f in folder.glob('*.pth')]
    files = [f for f in files if not f.name.startswith('best_')]
    return sorted(files, key=_age, reverse=True)


def _age(file: Path) -> tuple[float, int]:
    # interrupted.pth has no number, and goes when the next one is saved
    numbers = re.findall(r'\d+', file.stem)
    number = float(numbers[-1]) if numbers else inf
    return number, file.stat().st_mtime_ns


def _named(pointer: Path) -> Path | None:
    try:
        text = pointer.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None
    # nothing, or no path at all, where the pointer itself was torn
    if not text or '\0' in text:
        return None
    return Path(text)
