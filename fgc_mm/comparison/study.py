"""What is compared: rows, seeds, questions, and the axis of a figure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .entry import Entry
from .questions import Question

SEEDS = (0, 1, 2)  # where neither a row nor a plan says


@dataclass(frozen=True)
class Axis:
    """Rows that are points of lines in a figure.

    Attributes:
        label: Of the setting that is varied; None for the pruned MACs.
        series: The rows of each line with their settings; None stands for
            the MACs that the row has pruned.
    """

    label: str | None
    series: Mapping[str, Mapping[str, float | None]]


@dataclass(frozen=True)
class Study:
    """A comparison, as a plan file or a command line asks for it.

    Attributes:
        title: Of the report.
        entries: One per row of the table.
        seeds: Of every row that has none of its own; None if not said.
        epochs: For all runs; None for each config's own.
        options: ``--cfg-options`` of all runs, as they are typed.
        pruning_ratio: Of static pruning and of ``match_macs``, or None.
        match_macs: Whether every method is asked for the same MACs.
        published_dataset: Whose published numbers stand in the table.
        questions: Pairs of rows whose difference is wanted.
        axis: Of the figure of a sweep, if there is one.
    """

    title: str
    entries: tuple[Entry, ...]
    seeds: tuple[int, ...] | None = None
    epochs: int | None = None
    options: tuple[str, ...] = ()
    pruning_ratio: float | None = None
    match_macs: bool = False
    published_dataset: str | None = None
    questions: tuple[Question, ...] = ()
    axis: Axis | None = None
