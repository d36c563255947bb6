"""What a validation will report, and who waits for it."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmengine.dist import get_world_size
from mmengine.evaluator import BaseMetric, DumpResults, Evaluator
from mmengine.hooks import CheckpointHook, EarlyStoppingHook
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from mmpretrain.evaluation import Accuracy, MultiLabelMetric

from fgc_mm.errors import FGCError


def process(evaluator: Evaluator, batch: Any, samples: list) -> Evaluator:
    """A copy of the evaluator that has seen a batch of predictions.

    Raises:
        FGCError: A metric wants more best classes than there are, or labels
            that the images have not.
    """
    _check_topk(evaluator, samples)
    tried = copy.deepcopy(evaluator)
    # it would overwrite its file
    tried.metrics = [m for m in tried.metrics if not _writes(m)]
    try:
        tried.process(data_samples=samples, data_batch=batch)
    except (KeyError, AttributeError) as error:
        if 'gt_' not in str(error):
            raise
        raise FGCError(
            f'the evaluator needs {error} and the images have none: an '
            'evaluation compares with labels; give the data set labels '
            '(with_label=True), or remove the metric.'
        ) from error
    return tried


def reported(evaluator: Evaluator, size: int) -> dict[str, Any] | None:
    """The metrics of what :func:`process` has seen, computed on this rank.

    Returns:
        ``None`` if they are not known from so few images: a metric has
        failed on them, or wants all ranks.
    """
    found: dict[str, Any] = {}
    with _quiet():
        for metric in evaluator.metrics:
            try:
                values = _values(metric, size)
            except FGCError:
                raise
            except Exception:  # of few images, or few classes of them
                values = None
            if values is None:
                return None
            found.update(values)
    return found


def check_waiting(runner: Runner, names: list[str]) -> None:
    """Whether all that waits for a metric waits for one that is reported.

    Raises:
        FGCError: ``save_best``, ``monitor`` of early stopping or of a
            parameter scheduler is not among the names.
    """
    for who, name in _waiting(runner):
        if name not in names:
            raise FGCError(
                f'{who}={name!r} waits for a metric that the validation does '
                f'not report ({", ".join(names)}): it has to be one of them; '
                f'set {who} to one, or add the metric to val_evaluator.'
            )


def _waiting(runner: Runner) -> Iterator[tuple[str, str]]:
    for hook in runner.hooks:
        if isinstance(hook, CheckpointHook) and hook.save_best:
            for name in hook.key_indicators:
                if name != 'auto':
                    yield 'default_hooks.checkpoint.save_best', name
        if isinstance(hook, EarlyStoppingHook):
            yield 'monitor of EarlyStoppingHook', hook.monitor
    schedulers = runner.param_schedulers or []
    groups = schedulers if isinstance(schedulers, dict) else {'': schedulers}
    for scheduler in [one for group in groups.values() for one in group]:
        if hasattr(scheduler, 'monitor'):
            who = f'monitor of {type(scheduler).__name__}'
            yield who, scheduler.monitor


def _check_topk(evaluator: Evaluator, samples: list) -> None:
    for metric, task in _metrics(evaluator.metrics):
        if not isinstance(metric, (Accuracy, MultiLabelMetric)):
            continue
        best = (
            metric.topk if isinstance(metric.topk, tuple) else (metric.topk,)
        )
        sample = samples[0].get(task, None) if task else samples[0]
        score = sample.get('pred_score', None) if sample else None
        if score is not None and max(k or 0 for k in best) > len(score):
            raise FGCError(
                f'topk={metric.topk} of {type(metric).__name__} asks for '
                f'the {max(best)} best of {len(score)} classes; set '
                'topk=(1,) in val_evaluator and test_evaluator.'
            )


def _metrics(
    metrics: list[BaseMetric], task: str = ''
) -> Iterator[tuple[BaseMetric, str]]:
    """All metrics, those of a ``MultiTasksMetric`` with their task."""
    for metric in metrics:
        yield metric, task
        for name, inner in getattr(metric, '_metrics', {}).items():
            yield from _metrics(inner, name)


def _values(metric: BaseMetric, size: int) -> dict[str, Any] | None:
    """Without the collectives of ``evaluate``, where ranks could part."""
    if type(metric).evaluate is not BaseMetric.evaluate:
        return metric.evaluate(size) if get_world_size() == 1 else None
    values = metric.compute_metrics(metric.results)
    prefix = f'{metric.prefix}/' if metric.prefix else ''
    return {f'{prefix}{name}': value for name, value in values.items()}


def _writes(metric: BaseMetric) -> bool:
    return isinstance(metric, DumpResults)


@contextmanager
def _quiet() -> Iterator[None]:
    """No tables of a trial in the log."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
