"""Collects the results of a run from its files."""

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, median
from typing import Any

from mmengine.config import Config

from fgc_mm.reliability.atomic_file import write_atomically
from fgc_mm.reliability.checkpoint_reader import read_checkpoint

from ..errors import FGCError
from .costs import cost_of, static_metrics, zeroed_cost_of
from .environment import UNKNOWN, read_environment
from .run import Run

ACCURACY = 'accuracy/top1'
TOP5 = 'accuracy/top5'
COST = 'macs/mean', 'macs/dense'
RATIO = 'macs/pruning_ratio'
SWEEP = 'threshold_sweep'
FILE = 'result.json'
# counters and timings of a logged line
UNLOGGED = {'epoch', 'iter', 'step', 'time', 'data_time', 'memory'}


def write_result(run: Run, threads: int) -> dict[str, Any]:
    """Collects a finished run's numbers in its ``result.json``.

    Errors and ratios are in percent, MACs per image, times in seconds:
    ``error`` (last epoch, from fgc-mm test), ``top5_error`` if the test
    measures it, ``best_error`` (best validation), ``parameters``,
    ``seconds`` (training steps, without validation and start), every
    ``macs/pruning_ratio*``, ``by_epoch`` (see :func:`by_epoch`),
    ``threshold_sweep`` of gates with a threshold (see
    :mod:`fgc_mm.evaluation.threshold_sweep`), ``commands``,
    ``environment`` and ``recipe`` (:meth:`Run.full_recipe`).

    Raises:
        FGCError: The test has not measured the top-1 accuracy.
    """
    metrics = json.loads(run.metrics.read_text('utf-8'))
    if ACCURACY not in metrics:
        raise FGCError(
            f'{run.metrics} has no {ACCURACY}: the table compares top-1 '
            "errors; add dict(type='Accuracy') to test_evaluator."
        )
    cost = cost_of(str(run.trained_config))
    dynamic = COST[0] in metrics
    images = ' / '.join(f'{count:,}' for count in cost.images)
    if not dynamic:
        method, dense = run.method, cost
        if method.importance is not None:  # its config has the options
            dense = cost_of(str(method.config), method.options)
        left = zeroed_cost_of(
            str(run.trained_config), str(run.last_checkpoint)
        )
        cost = left or cost
        metrics.update(static_metrics(cost.macs, dense.macs))
    error = 100 - metrics[ACCURACY]
    sweep = run.sweep.read_text('utf-8') if run.method.sweeps else None
    epochs = by_epoch(run.folder)
    validated = {
        e['epoch']: 100 - e[ACCURACY] for e in epochs if ACCURACY in e
    }
    if _validates_test_images(run):  # stopped in it, it is not repeated
        validated.setdefault(run.method.epochs, error)
    result = dict(
        method=run.method.name,
        seed=run.seed,
        epochs=run.method.epochs,
        data=f'{run.method.data}, {images} images',
        dynamic=dynamic,
        error=error,
        best_error=min(validated.values(), default=error),
        parameters=cost.parameters,
        seconds=training_seconds(run),
        **({'top5_error': 100 - metrics[TOP5]} if TOP5 in metrics else {}),
        **{k: metrics[k] for k in COST},
        **{k: v for k, v in metrics.items() if k.startswith(RATIO)},
        by_epoch=epochs,
        **({} if sweep is None else {SWEEP: json.loads(sweep)}),
        commands=_portable_commands(run),
        environment={**_environment(run), 'threads per run': str(threads)},
        recipe=run.full_recipe(),
    )
    write_atomically(json.dumps(result, indent=1).encode(), _file(run))
    return result


def _validates_test_images(run: Run) -> bool:
    cfg = Config.fromfile(run.trained_config)
    loaders = cfg.get('val_dataloader'), cfg.get('test_dataloader')
    val, test = ((loader or {}).get('dataset') for loader in loaders)
    return val is not None and val == test


def _environment(run: Run) -> dict[str, str]:
    """That of the process which has trained the last steps."""
    files = _scalar_files(run.folder)
    return read_environment(files[-1].parents[1]) if files else UNKNOWN


def _portable_commands(run: Run) -> list[str]:
    """The commands without the paths on the machine that ran them."""
    commands = '\n'.join(run.logged_commands())
    commands = commands.replace(str(run.folder), 'DIR')
    if run.start is not None:
        commands = commands.replace(str(run.start.folder), 'START_DIR')
    return commands.splitlines()


def read_result(run: Run) -> dict[str, Any] | None:
    """The file of :func:`write_result`, if it is newer than the test."""
    file = _file(run)
    if not file.is_file() or not run.metrics.is_file():
        return None
    if file.stat().st_mtime < run.metrics.stat().st_mtime:
        return None
    result = json.loads(file.read_text('utf-8'))
    return result if 'recipe' in result else None  # of an older version


def scalars(folder: Path) -> Iterator[dict[str, Any]]:
    """All scalars that a run has logged, including before a resume."""
    for file in _scalar_files(folder):
        for line in file.read_text('utf-8', 'replace').splitlines():
            try:
                yield json.loads(line)
            except json.JSONDecodeError:  # an incomplete line of a killed run
                continue


def _scalar_files(folder: Path) -> list[Path]:
    """The file of each process that has trained, in their order."""
    return sorted(folder.glob('*/vis_data/scalars.json'))


def by_epoch(folder: Path) -> list[dict[str, float]]:
    """One dict per epoch: means of the logged scalars, and the validation.

    Steps that were trained twice, before and after an interruption, count
    twice. An epoch that was interrupted after its last logged step has only
    its validation.
    """
    steps: dict[int, dict[str, list[float]]] = {}
    epochs: dict[int, dict[str, float]] = {}
    for line in scalars(folder):
        if ACCURACY in line:
            epochs[line['step']] = {
                k: v for k, v in line.items() if k not in UNLOGGED
            }
        elif 'epoch' in line:
            step = steps.setdefault(line['epoch'], defaultdict(list))
            for name in line.keys() - UNLOGGED:
                step[name].append(line[name])
    for epoch, values in steps.items():
        means = {name: mean(values[name]) for name in sorted(values)}
        epochs[epoch] = means | epochs.get(epoch, {})
    return [{'epoch': epoch, **epochs[epoch]} for epoch in sorted(epochs)]


def training_seconds(run: Run) -> float:
    """Seconds of all training steps.

    The median step of each epoch times the number of steps, so pauses and
    other load on the machine do not count.
    """
    times = defaultdict(list)
    for line in scalars(run.folder):
        if 'epoch' in line and 'time' in line:
            times[line['epoch']].append(line['time'])
    if not times:
        return 0.0
    done = read_checkpoint(run.last_checkpoint)['meta']['iter']
    return done * sum(map(median, times.values())) / len(times)


def epochs_done(folder: Path) -> tuple[int, float | None]:
    """Number of finished epochs, and the last validation error."""
    begun, errors = 0, {}
    for line in scalars(folder):
        begun = line.get('epoch', begun)
        if ACCURACY in line:
            errors[line['step']] = 100 - line[ACCURACY]
    if not errors:
        return max(begun - 1, 0), None
    last = max(errors)
    return max(begun - 1, last), errors[last]


def _file(run: Run) -> Path:
    return run.folder / FILE
