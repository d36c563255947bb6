"""Reads the results of runs that ``fgc-mm compare --results`` has stored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import FGCError
from .study import Study

NEEDED = {
    'method', 'seed', 'error', 'best_error', 'epochs', 'data', 'dynamic',
    'macs/mean', 'macs/pruning_ratio', 'parameters', 'seconds', 'environment',
}  # fmt: skip


def read_stored_results(folder: Path, study: Study) -> list[dict[str, Any]]:
    """The results of the rows of a study, in its order.

    Args:
        folder: With ``METHOD/seedN.json``, as ``fgc-mm compare --results``
            writes them; files may be missing.
        study: Its rows are read.

    Raises:
        FGCError: A file is damaged.
    """
    results = []
    for entry in study.entries:
        files = folder.glob(f'{entry.row}/seed*.json')
        found = [read_result_file(file) for file in files]
        results += sorted(found, key=lambda result: result['seed'])
    return results


def read_result_file(file: Path) -> dict[str, Any]:
    """The results of one run.

    Raises:
        FGCError: The file is missing or damaged.
    """
    try:
        result = json.loads(file.read_text())
        missing = NEEDED - {*result}
    except (OSError, ValueError, TypeError) as error:
        raise _damaged(file, error) from error
    if missing or not isinstance(result, dict):
        raise _damaged(file, f'it lacks {", ".join(sorted(missing))}')
    return result


def _damaged(file: Path, why: object) -> FGCError:
    return FGCError(
        f'{file} is not a result ({why}); run fgc-mm compare --results again.'
    )
