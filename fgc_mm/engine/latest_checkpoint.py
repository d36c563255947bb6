"""Which checkpoint of a work dir a run goes on from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..errors import FGCError
from .checkpoint import check_resumable

POINTER = 'last_checkpoint'


def latest_checkpoint(work_dir: str | Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint that is whole.

    Args:
        work_dir: The folder of the run.

    Returns:
        The file (None if the folder has no checkpoint at all), and a
        sentence for each newer file that was passed over.

    Raises:
        FGCError: There are checkpoints, and none is whole.
    """
    refusals: list[str] = []
    for file in _candidates(Path(work_dir)):
        try:
            check_resumable(file)
        except FGCError as error:
            refusals.append(str(error))
        else:
            return file, refusals
    if refusals:
        raise FGCError(refusals[0])
    return None, refusals


def _candidates(folder: Path) -> Iterator[Path]:
    """The one that the pointer names, then the others, newest first."""
    named = _named(folder / POINTER)
    if named is not None:
        yield named
    files = [*folder.glob('*.pth')]
    if named is not None:  # out_dir may be elsewhere
        files += [f for f in named.parent.glob('*.pth') if f not in files]
    files.sort(key=lambda file: file.stat().st_mtime_ns, reverse=True)
    for file in files:
        # the best are saved without their optimizer
        if file != named and not file.name.startswith('best_'):
            yield file


def _named(pointer: Path) -> Path | None:
    try:
        text = pointer.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None
    # nothing, or no path at all, where the pointer itself was torn
    if not text or '\0' in text:
        return None
    return Path(text)
