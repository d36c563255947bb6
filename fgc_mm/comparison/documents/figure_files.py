"""A figure of stored results, and whether its files are up to date."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from fgc_mm.reliability.atomic_file import write_atomically

from ...figure_style import FORMATS
from ..results import SWEEP
from ..study import Study
from ..table import Results
from .labels import row_labels
from .trade_off_plot import trade_off_plot

SHOWN = (
    'method', 'seed', 'error', 'macs/mean', 'macs/pruning_ratio', 'dynamic',
    SWEEP,
)  # fmt: skip
PREFIX = 'fgc_mm results'


@dataclass(frozen=True)
class ResultFigure:
    """An image file and the results that it shows.

    Pixels differ between versions of matplotlib, so PNG and SVG contain a
    fingerprint of the numbers and names that they show.

    Attributes:
        file: The PNG; the SVG is in the same folder.
        study: Its rows.
        results: Results of the rows.
    """

    file: Path
    study: Study
    results: Results

    def fingerprint(self) -> str:
        """A hash of all numbers and names in the figure."""
        shown = [{k: r.get(k) for k in SHOWN} for r in self.results]
        labels = [*row_labels(self.study, self.results).items()]
        text = json.dumps([labels, shown], sort_keys=True)
        return f'{PREFIX} {hashlib.sha256(text.encode()).hexdigest()}'

    def is_up_to_date(self) -> bool:
        """Whether both files show these results."""
        fingerprint = self.fingerprint().encode()
        return all(
            file.is_file() and fingerprint in file.read_bytes()
            for file in self._files().values()
        )

    def write(self) -> None:
        """Draw PNG and SVG."""
        for kind, file in self._files().items():
            content = trade_off_plot(
                self.study, self.results, kind, self.fingerprint()
            )
            write_atomically(content, file)

    def _files(self) -> dict[str, Path]:
        return {kind: self.file.with_suffix(f'.{kind}') for kind in FORMATS}
