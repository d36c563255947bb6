"""The numbers of finished runs that ``compare.py --results`` has kept."""

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


def read_kept(folder: Path, study: Study) -> list[dict[str, Any]]:
    """The results of a study's rows, in its order; none of other rows.

    Args:
        folder: With ``METHOD/seedN.json``, as ``compare.py --results`` keeps
            them; a missing one holds nothing yet.
        study: Whose rows.

    Raises:
        FGCError: A file is damaged.
    """
    results = []
    for entry in study.entries:
        files = folder.glob(f'{entry.row}/seed*.json')
        found = [read_kept_file(file) for file in files]
        results += sorted(found, key=lambda result: result['seed'])
    return results


def read_kept_file(file: Path) -> dict[str, Any]:
    """The numbers of one run.

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
        f'{file} is no result ({why}); run compare.py --results again.'
    )
