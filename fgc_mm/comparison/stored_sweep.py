"""Adds a threshold sweep to the stored results of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fgc_mm.reliability.atomic_file import write_atomically

from ..errors import FGCError
from .results import SWEEP

TRAINED = 0.5  # the threshold that gates are trained and tested with
TOLERANCE = 0.2  # percentage points, for rounding on other machines


def add_sweep(
    file: Path, result: Mapping[str, Any], rows: Sequence[Mapping[str, float]]
) -> None:
    """Writes the sweep of a run's last checkpoint into its stored results.

    Args:
        file: ``METHOD/seedN.json`` of ``fgc-mm compare --results``.
        result: Its content.
        rows: As :func:`fgc_mm.evaluation.threshold_sweep.sweep_thresholds`
            returns them.

    Raises:
        FGCError: The rows have no threshold of 0.5, or the error at 0.5
            differs from that of the run.
    """
    trained = [100 - r['accuracy'] for r in rows if r['threshold'] == TRAINED]
    if not trained:
        raise FGCError(
            f'--thresholds without {TRAINED} cannot be compared with the '
            f'error in {file}; add {TRAINED}.'
        )
    if abs(trained[0] - result['error']) > TOLERANCE:
        raise FGCError(
            f'{file} has an error of {result["error"]:.2f} %, but the '
            f'checkpoint has {trained[0]:.2f} %; give the checkpoint of the '
            'last epoch of that run.'
        )
    completed = {**result, SWEEP: [*rows]}
    write_atomically(json.dumps(completed, indent=1).encode(), file)
