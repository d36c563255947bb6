"""Stored results of runs: the folder of ``fgc-mm compare --results``."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fgc_mm.reliability.atomic_file import write_atomically

from ..errors import FGCError
from .results import SWEEP
from .run import Run
from .study import Study

NEEDED = {
    'method', 'seed', 'error', 'best_error', 'epochs', 'data', 'dynamic',
    'macs/mean', 'macs/pruning_ratio', 'parameters', 'seconds', 'environment',
}  # fmt: skip
TRAINED = 0.5  # the threshold with which gates are trained and tested
TOLERANCE = 0.2  # percentage points, for rounding on other machines


def read_stored_results(folder: Path, study: Study) -> list[dict[str, Any]]:
    """The results of the rows of a study, in its order, from a folder.

    They are in files ``METHOD/seedN.json``, of which some may be missing.

    Raises:
        FGCError: A file is damaged.
    """
    results = []
    for entry in study.entries:
        files = (folder / entry.row).glob('seed*.json')
        found = [_read_result_of(entry.row, file) for file in files]
        results += sorted(found, key=lambda result: result['seed'])
    return results


def _read_result_of(row: str, file: Path) -> dict[str, Any]:
    result = read_result_file(file)
    if (result['method'], f'seed{result["seed"]}') != (row, file.stem):
        of = f'{result["method"]!r} with seed {result["seed"]!r}'
        raise _damaged(file, f'it is that of {of}')
    return result


def result_file(run: Run, folder: Path) -> Path:
    """The file of a run in a folder of stored results."""
    return folder / run.method.name / f'seed{run.seed}.json'


def store_result(run: Run, result: dict[str, Any], folder: Path) -> None:
    """Writes a finished run's result to ``folder/METHOD/seedN.json``."""
    content = json.dumps(result, indent=1).encode()
    write_atomically(content, result_file(run, folder))


def find_stored_result(run: Run, folder: Path) -> dict[str, Any] | None:
    """The stored result of a run.

    Returns:
        None if there is no file, or one of an older version: without recipe
        or without the threshold sweep that the method has.

    Raises:
        FGCError: The file is damaged, or of a run with other settings.
    """
    file = result_file(run, folder)
    if not file.is_file():
        return None
    result = _read_result_of(run.method.name, file)
    recipe = result.get('recipe', {'epochs': result['epochs']})
    if not isinstance(recipe, dict) or 'epochs' not in recipe:
        raise _damaged(file, 'its recipe is none')
    change = run.recipe_change(recipe)
    if change is not None:
        raise FGCError(
            f'{file} is the result of a run with other settings ({change}), '
            'which this comparison would replace; use another --results '
            'folder, or remove that file.'
        )
    complete = 'seed' in recipe and (SWEEP in result or not run.method.sweeps)
    return result if complete else None


def read_result_file(file: Path) -> dict[str, Any]:
    """The results of one run.

    Raises:
        FGCError: The file is missing or damaged.
    """
    try:
        result = json.loads(file.read_text('utf-8'))
        missing = NEEDED - {*result}
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise _damaged(file, error) from error
    if missing or not isinstance(result, dict):
        raise _damaged(file, f'it lacks {", ".join(sorted(missing))}')
    return result


def check_trained(file: Path, thresholds: Iterable[float]) -> None:
    """Checks that a sweep can be compared with a run's stored error.

    Raises:
        FGCError: The threshold of training is not among these.
    """
    if TRAINED not in thresholds:
        raise FGCError(
            f'--thresholds without {TRAINED} cannot be compared with the '
            f'error in {file}; add {TRAINED}.'
        )


def add_sweep(
    file: Path, result: Mapping[str, Any], rows: Sequence[Mapping[str, float]]
) -> None:
    """Writes the sweep of a run's last checkpoint into its stored results.

    Args:
        file: The file of the run.
        result: Its content.
        rows: As :func:`fgc_mm.evaluation.threshold_sweep.sweep_thresholds`
            returns them.

    Raises:
        FGCError: The rows have no threshold of 0.5, or the error at 0.5
            differs from that of the run.
    """
    errors = {row['threshold']: 100 - row['accuracy'] for row in rows}
    check_trained(file, errors)
    error = errors[TRAINED]
    if abs(error - result['error']) > TOLERANCE:
        raise FGCError(
            f'{file} has an error of {result["error"]:.2f} %, but the '
            f'checkpoint has {error:.2f} %; give the checkpoint of the '
            'last epoch of that run.'
        )
    completed = {**result, SWEEP: [*rows]}
    write_atomically(json.dumps(completed, indent=1).encode(), file)


def _damaged(file: Path, why: object) -> FGCError:
    return FGCError(
        f'{file} is not a result ({why}); remove it, and run fgc-mm compare '
        '--results again.'
    )
