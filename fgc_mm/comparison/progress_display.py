"""Shows the progress of a comparison in the terminal, a line per run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
)
from rich.table import Table

from .results import epochs_done
from .run import Run
from .table import Row, summary
from .time_left import TimeLeft

REFRESH_SECONDS = 2.0  # between two reads of the runs' logs
HEAD = 'method', 'runs', 'error %', 'best %', 'pruned %', 'MACs'


class ProgressDisplay:
    """A progress line per run; outside a terminal, a line per event."""

    def __init__(self, console: Console, runs: Sequence[Run]) -> None:
        self.console = console
        self.runs = runs
        self._refreshed = 0.0
        self._progress = Progress(
            TextColumn('{task.description}', markup=False),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn('{task.fields[state]}', markup=False),
            console=console,
            disable=not console.is_terminal,
        )
        self._tasks = {
            run.name: self._progress.add_task(
                run.name, total=run.method.epochs, state=run.state
            )
            for run in runs
        }
        self._all_runs = self._progress.add_task(
            'all runs', total=None, state=''
        )
        self._left = TimeLeft(
            {run.name: run.method.epochs for run in runs},
            {run.name: _epochs_done(run) for run in runs},
        )

    def __enter__(self) -> ProgressDisplay:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def changed(self, run: Run, result: dict[str, Any] | None) -> None:
        """Print the new state of a run."""
        text = run.state
        if result is not None:
            text = (
                f'done: error {result["error"]:.2f} %, '
                f'{result["macs/pruning_ratio"]:.1f} % of the MACs pruned'
            )
            text += f' ({run.reason})' if run.reason else ''
        elif run.reason:
            text = f'{run.state}: {run.reason}'
        self._update(run, text)
        if run.state in ('failed', 'stopped'):
            self._left.end(run.name)
        left = f' ({self._left})' if str(self._left) else ''
        line = f'{run.name}: {text}{left}'
        self.console.print(line, markup=False, soft_wrap=True)

    def tick(self) -> None:
        """Update the progress lines every REFRESH_SECONDS."""
        if not self.console.is_terminal:
            return
        if time.monotonic() - self._refreshed < REFRESH_SECONDS:
            return
        self._refreshed = time.monotonic()
        for run in self.runs:
            if run.state == 'training':
                self._update(run, run.state)

    def show(self, rows: Sequence[Row]) -> None:
        """Print the short table."""
        table = Table(box=None)
        for number, name in enumerate(HEAD):
            table.add_column(
                name,
                justify='right' if number else 'left',
                overflow='fold',
                no_wrap=bool(number),
            )
        for row in rows:
            table.add_row(escape(row.method), *summary(row))
        self.console.print(table)

    def _update(self, run: Run, text: str) -> None:
        error = epochs_done(run.folder)[1]
        if run.state == 'training' and error is not None:
            text = f'{text}, error {error:.2f} %'
        done = _epochs_done(run)
        self._left.update(run.name, done)
        task = self._tasks[run.name]
        self._progress.update(task, completed=done, state=text)
        self._progress.update(self._all_runs, state=str(self._left))


def _epochs_done(run: Run) -> int:
    if run.state == 'done':  # also if its files are not in the work dir
        return run.method.epochs
    return epochs_done(run.folder)[0]
