"""A row of a comparison, as a plan or the command line describes it."""

from dataclasses import dataclass
from pathlib import Path

from ..deploy.compaction.importances import IMPORTANCES
from ..errors import check_choice


@dataclass(frozen=True)
class Start:
    """A training run, one per seed, that other runs start from.

    Attributes:
        config: Its config.
        epochs: Number of epochs; None for that of all runs.
    """

    config: str
    epochs: int | None = None


@dataclass(frozen=True)
class Entry:
    """A row of the table.

    Attributes:
        config: Path of the config.
        importance: Criterion of static pruning; None for other methods.
        name: Name of the row; None for the config's name.
        label: What documents call the row; None for its method.
        options: ``--cfg-options`` of this row only, as on a command line.
        seeds: Seeds of this row only; None for those of all rows.
        epochs: Epochs of this row only; None for those of all rows.
        start: The run from which its runs start, or which is their teacher.
        loads_start: Whether the weights of ``start`` are loaded; if not, it
            is only the teacher of the runs' distillation.
        pruning_ratio: Fraction of the MACs to prune in this row (static
            pruning, or ``match_macs``); None for that of all rows.
    """

    config: str
    importance: str | None = None
    name: str | None = None
    label: str | None = None
    options: tuple[str, ...] = ()
    seeds: tuple[int, ...] | None = None
    epochs: int | None = None
    start: Start | None = None
    loads_start: bool = True
    pruning_ratio: float | None = None

    @property
    def row(self) -> str:
        """The name of the row, of its folder and of its results."""
        stem = Path(self.config).stem
        if self.name is None and self.importance is not None:
            return f'{self.importance}_{stem.removeprefix("dense_")}'
        return self.name or stem

    @property
    def pretrains(self) -> bool:
        """Whether its runs load the weights of another training."""
        return self.start is not None and self.loads_start


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
