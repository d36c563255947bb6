"""What is shown of runs, in a terminal."""

import io
from pathlib import Path

from rich.console import Console

from fgc_mm.comparison.progress_display import ProgressDisplay
from fgc_mm.comparison.run import Method, Run
from fgc_mm.comparison.table import MeanStd, Row


def test_brackets_are_text(tmp_path):
    """Of names and reasons, which rich would read as its markup."""
    method = Method('[/a]', Path('a.py'), 1, False, (), {}, 'data')
    run = Run(method, 0, tmp_path)
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=200)
    with ProgressDisplay(console, [run]) as display:
        run.state, run.reason = 'failed', '[/home/a] is missing'
        display.changed(run, None)
        display._progress.refresh()
    names = 'error', 'best_error', 'macs/pruning_ratio', 'macs/mean'
    values = {name: MeanStd(1.0, None) for name in names}
    display.show([Row('[/a]', 'data', 1, True, (0,), values)])
    *_, last = file.getvalue().splitlines()
    assert '[/a]' in last
    assert '[/home/a] is missing' in file.getvalue()
