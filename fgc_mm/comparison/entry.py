"""One method of a comparison, as the user asks for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..deploy.compaction.importances import IMPORTANCES
from ..errors import check_choice


@dataclass(frozen=True)
class Start:
    """A training that other runs start from, one per seed.

    Attributes:
        config: Its config.
        epochs: How many it trains for; None for as many as all others.
    """

    config: str
    epochs: int | None = None


@dataclass(frozen=True)
class Entry:
    """A row that was asked for.

    Attributes:
        config: Path of the config.
        importance: Of static pruning; None if nothing is pruned.
        name: Of the row; None for the config's name.
        options: ``--cfg-options`` of this row alone, as they are typed.
        seeds: Of this row alone; None for those of all.
        epochs: Of this row alone; None for those of all.
        start: What its runs start from.
        pruning_ratio: Share of the MACs that this row is asked for, where
            rows are; None for that of all.
    """

    config: str
    importance: str | None = None
    name: str | None = None
    options: tuple[str, ...] = ()
    seeds: tuple[int, ...] | None = None
    epochs: int | None = None
    start: Start | None = None
    pruning_ratio: float | None = None

    @property
    def row(self) -> str:
        """The name of the row, of its folder and of its results."""
        stem = Path(self.config).stem
        if self.name is None and self.importance is not None:
            return f'{self.importance}_{stem.removeprefix("dense_")}'
        return self.name or stem


def split_entry(text: str) -> tuple[str | None, str]:
    """(importance or None, path) of ``[IMPORTANCE:]CONFIG``.

    Raises:
        FGCError: The importance is unknown.
    """
    importance, colon, path = text.partition(':')
    if not colon or Path(text).is_file():
        return None, text
    check_choice(
        f'{text} asks for static pruning by {importance!r}, which',
        importance,
        IMPORTANCES,
    )
    return importance, path
