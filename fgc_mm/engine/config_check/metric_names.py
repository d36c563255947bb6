"""The metrics that a validation reports, and options that name one."""

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


def process_batch(
    evaluator: Evaluator, batch: Any, samples: list
) -> Evaluator:
    """A copy of the evaluator that has processed a batch of predictions.

    Raises:
        FGCError: ``topk`` of a metric exceeds the number of classes, or a
            metric needs labels that the images do not have.
    """
    _check_topk(evaluator, samples)
    tried = copy.deepcopy(evaluator)
    # DumpResults would overwrite its file
    tried.metrics = [
        m for m in tried.metrics if not isinstance(m, DumpResults)
    ]
    try:
        tried.process(data_samples=samples, data_batch=batch)
    except (KeyError, AttributeError) as error:
        if 'gt_' not in str(error):
            raise
        raise FGCError(
            f'the evaluator needs {error}, which the images do not have: an '
            'evaluation compares predictions with labels; set '
            'with_label=True in the data set, or remove the metric.'
        ) from error
    return tried


def reported_metrics(evaluator: Evaluator, size: int) -> dict[str, Any] | None:
    """The metrics of the batch that an evaluator has processed.

    Computed on this rank alone.

    Returns:
        ``None`` if they cannot be computed from one batch on one rank.
    """
    found: dict[str, Any] = {}
    with _quiet():
        for metric in evaluator.metrics:
            try:
                values = _values(metric, size)
            except FGCError:
                raise
            except Exception:  # too few images or classes for this metric
                values = None
            if values is None:
                return None
            found.update(values)
    return found


def check_monitored(runner: Runner, names: list[str]) -> None:
    """Check that every monitored metric is one that is reported.

    Raises:
        FGCError: ``save_best``, ``monitor`` of early stopping or of a
            parameter scheduler is not among the names.
    """
    for option, name in _monitored(runner):
        if name not in names:
            raise FGCError(
                f'{option}={name!r} is not a metric that the validation '
                f'reports ({", ".join(names)}); set {option} to one of '
                'these, or add the metric to val_evaluator.'
            )


def _monitored(runner: Runner) -> Iterator[tuple[str, str]]:
    """Options that name a metric, with the name."""
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
            option = f'monitor of {type(scheduler).__name__}'
            yield option, scheduler.monitor


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
    """All metrics; those inside a ``MultiTasksMetric`` with their task."""
    for metric in metrics:
        yield metric, task
        for name, inner in getattr(metric, '_metrics', {}).items():
            yield from _metrics(inner, name)


def _values(metric: BaseMetric, size: int) -> dict[str, Any] | None:
    """Compute a metric without the collectives of ``evaluate``.

    If it failed on one rank, the others would wait in them.
    """
    if type(metric).evaluate is not BaseMetric.evaluate:
        return metric.evaluate(size) if get_world_size() == 1 else None
    values = metric.compute_metrics(metric.results)
    prefix = f'{metric.prefix}/' if metric.prefix else ''
    return {f'{prefix}{name}': value for name, value in values.items()}


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the tables of metrics out of the log."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
