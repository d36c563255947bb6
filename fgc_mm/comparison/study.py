"""The contents of a plan: rows, seeds, questions, and a figure's axis."""

from collections.abc import Mapping
from dataclasses import dataclass

from .entry import Entry
from .questions import Question

SEEDS = (0, 1, 2)  # by default
PRUNING_RATIO = 0.55


@dataclass(frozen=True)
class Axis:
    """Rows that are points of lines in a figure.

    Attributes:
        label: The setting that is varied; None for the pruned MACs.
        series: The rows of each line with their settings; None for the
            measured pruning ratio of the row.
    """

    label: str | None
    series: Mapping[str, Mapping[str, float | None]]


@dataclass(frozen=True)
class Study:
    """A comparison, as described by a plan file or a command line.

    Attributes:
        title: Title of the report.
        entries: One per row of the table.
        seeds: Seeds of rows that do not set their own; each is one run.
        epochs: Epochs of all runs; None for those of each config.
        options: ``--cfg-options`` of all runs, as on a command line.
        pruning_ratio: Target of static pruning and of ``match_macs``.
        match_macs: Whether every method is trained for that ratio.
        published_dataset: The published numbers of this data set are shown
            in the table; None: those of the data sets in the configs' names.
        questions: Pairs of rows whose difference is computed.
        axis: Of the figure of a sweep, if there is one.
    """

    title: str
    entries: tuple[Entry, ...]
    seeds: tuple[int, ...] = SEEDS
    epochs: int | None = None
    options: tuple[str, ...] = ()
    pruning_ratio: float = PRUNING_RATIO
    match_macs: bool = False
    published_dataset: str | None = None
    questions: tuple[Question, ...] = ()
    axis: Axis | None = None
