"""What the user sees of a comparison: a line per run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
)
from rich.table import Table

from .report import summary
from .results import epochs_done
from .run import Run
from .table import Row
from .time_left import TimeLeft

REFRESH = 2.0  # seconds between two looks into the runs' logs
HEAD = 'method', 'runs', 'error %', 'best %', 'pruned %', 'MACs'


class Board:
    """A progress line per run; on no terminal, a line per event.

    Args:
        console: Where to.
        runs: All runs.
    """

    def __init__(self, console: Console, runs: Sequence[Run]) -> None:
        self.console = console
        self.runs = runs
        self._looked = 0.0
        self._progress = Progress(
            TextColumn('{task.description}'),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn('{task.fields[note]}'),
            console=console,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._left = TimeLeft(
            {run.name: run.method.epochs for run in runs},
            {run.name: epochs_done(run.folder)[0] for run in runs},
        )

    def __enter__(self) -> Board:
        for run in self.runs:
            self._tasks[run.name] = self._progress.add_task(
                run.name, total=run.method.epochs, note=run.state
            )
        self._whole = self._progress.add_task('all runs', total=None, note='')
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def changed(self, run: Run, result: dict[str, Any] | None) -> None:
        """Says that a run has come into another state."""
        note = run.state
        if result is not None:
            note = (
                f'done: error {result["error"]:.2f} %, '
                f'{result["macs/pruning_ratio"]:.1f} % of the MACs pruned'
            )
        elif run.reason:
            note = f'{run.state}: {run.reason}'
        self._update(run, note)
        if run.state in ('failed', 'stopped'):
            self._left.end(run.name)
        left = f' ({self._left})' if str(self._left) else ''
        line = f'{run.name}: {note}{left}'
        self.console.print(line, markup=False, soft_wrap=True)

    def tick(self) -> None:
        """Looks, now and then, how far the runs are."""
        if not self.console.is_terminal:
            return
        if time.monotonic() - self._looked < REFRESH:
            return
        self._looked = time.monotonic()
        for run in self.runs:
            if run.state == 'training':
                self._update(run, run.state)

    def show(self, rows: Sequence[Row]) -> None:
        """Prints the short table."""
        table = Table(box=None)
        for number, name in enumerate(HEAD):
            table.add_column(
                name,
                justify='right' if number else 'left',
                overflow='fold',
                no_wrap=bool(number),
            )
        for line in summary(rows):
            table.add_row(*line)
        self.console.print(table)

    def _update(self, run: Run, note: str) -> None:
        done, error = epochs_done(run.folder)
        if run.state == 'training' and error is not None:
            note = f'{note}, error {error:.2f} %'
        if run.state == 'done':
            done = run.method.epochs
        self._left.update(run.name, done)
        task = self._tasks.get(run.name)
        if task is not None:
            self._progress.update(task, completed=done, note=note)
            self._progress.update(self._whole, note=str(self._left))
