"""Per-site scalars and histograms for TensorBoard, W&B and other backends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.dist import (
    all_gather_object,
    get_rank,
    get_world_size,
    is_main_process,
)
from mmengine.hooks import Hook, LoggerHook
from mmengine.runner import BaseLoop, IterBasedTrainLoop, Runner
from torch import Tensor

from fgc_mm.engine.gate_histograms import add_histograms
from fgc_mm.errors import FGCError
from fgc_mm.functional.macs import MACsTable
from fgc_mm.registry import HOOKS


@HOOKS.register_module()
class GateStatisticsHook(Hook):
    """Logs how the channels of each site are used in a validation or test.

    It logs through MMEngine's ``Visualizer``, that is, in every backend of
    the config (``vis_backends=[dict(type='TensorboardVisBackend')]``). The
    scalars of each site are ``gates/keep_ratio/SITE``, the fraction of open
    channels, and ``gates/never_open/SITE`` and ``gates/always_open/SITE``,
    the fractions of channels that no image opens, and that all images open.
    The histogram ``gates/firing_rate/SITE`` is over the channels: the
    fraction of images that open a channel. TensorBoard and W&B get
    histograms, other backends one picture of all sites.

    The numbers are computed from the predictions, so the model must be a
    ``GatedImageClassifier`` or a ``GatedModel``. In a test the names begin
    with ``test/``.

    Args:
        histograms: Whether histograms are logged as well.
        interval: Number of validations between two logs, of which the first
            validation has one.

    Raises:
        FGCError: ``interval`` is not positive, or predictions have no gate
            masks.
    """

    priority = 'BELOW_NORMAL'

    def __init__(self, histograms: bool = True, interval: int = 1) -> None:
        if not (isinstance(interval, int) and interval > 0):
            raise FGCError(
                f'interval={interval!r} of GateStatisticsHook is not a number '
                'of validations; give a whole number of at least 1.'
            )
        self.histograms = histograms
        self.interval = interval
        self._length: int | None = None  # images of the data set
        self._reset()

    def _before_epoch(self, runner: Runner, mode: str = 'train') -> None:
        """Start to count."""
        self._reset()
        if mode != 'train':
            loop = runner.val_loop if mode == 'val' else runner.test_loop
            images = loop.dataloader.dataset
            self._length = len(images) if hasattr(images, '__len__') else None

    def _after_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
        mode: str = 'train',
    ) -> None:
        """Count the open channels of a batch."""
        if mode == 'test' or (mode == 'val' and self._is_chosen(runner)):
            self._count(outputs or ())

    def _after_epoch(self, runner: Runner, mode: str = 'train') -> None:
        """Log the statistics of the validation or test set."""
        if mode != 'train':
            self._log(runner, 'test/' if mode == 'test' else '')

    def _reset(self) -> None:
        self._table: MACsTable | None = None
        self._opened: Tensor | None = None  # images that open each channel
        self._images = 0
        self._seen = 0  # with those that the sampler repeats

    def _is_chosen(self, runner: Runner) -> bool:
        """Whether a validation is logged; the same in a resumed run."""
        loop = runner._train_loop
        if loop is None or isinstance(loop, dict):
            return True
        by_iter = isinstance(loop, IterBasedTrainLoop)
        done = runner.iter if by_iter else runner.epoch
        return _validations_before(loop, done) % self.interval == 0

    def _count(self, samples: Sequence[Any]) -> None:
        for sample in samples:
            # images are dealt out in turn, and the first ones again at the
            # end if the ranks do not divide their number
            position = self._seen * get_world_size() + get_rank()
            self._seen += 1
            if self._length is not None and position >= self._length:
                continue
            masks = sample.get('gate_masks', None)
            if masks is None:
                raise FGCError(
                    'a prediction has no gate_masks, which GateStatisticsHook '
                    'logs; use a model of type fgc_mm.GatedImageClassifier or '
                    'fgc_mm.GatedModel, or remove the hook.'
                )
            if self._opened is None:
                self._table = sample.get('macs_table')
                self._opened = torch.zeros(len(masks), dtype=torch.float64)
            self._opened += masks
            self._images += 1

    def _log(self, runner: Runner, prefix: str) -> None:
        own = self._table, self._opened, self._images
        self._reset()
        # a rank without images knows neither the sites nor their channels
        counted = [x for x in all_gather_object(own) if x[0] is not None]
        if not counted or not is_main_process():
            return
        tables, opened, images = zip(*counted, strict=True)
        firing = sum(opened).float() / sum(images)
        parts = firing.split(tables[0].channels)
        rates = dict(zip(tables[0].sites, parts, strict=True))
        step = _step(runner)
        runner.visualizer.add_scalars(_scalars(rates, prefix), step=step)
        if self.histograms:
            name = f'{prefix}gates/firing_rate'
            add_histograms(runner.visualizer, name, rates, step)


def _validations_before(loop: BaseLoop, done: int) -> int:
    """Number of validations of a training loop before ``done``.

    Args:
        loop: It also validates at its end, and its interval may change.
        done: Finished epochs, or iterations.
    """
    intervals = getattr(loop, 'dynamic_intervals', [loop.val_interval])
    milestones = getattr(loop, 'dynamic_milestones', [0])
    # an interval begins with the validation before its milestone
    starts = [max(m - 1, loop.val_begin, 1) for m in milestones]
    ends = [*starts[1:], done]
    return sum(
        max((min(end, done) - 1) // interval - (start - 1) // interval, 0)
        for start, end, interval in zip(starts, ends, intervals)
    )


def _scalars(rates: Mapping[str, Tensor], prefix: str) -> dict[str, float]:
    scalars = {}
    for site, rate in rates.items():
        for name, value in (
            ('keep_ratio', rate.mean()),
            ('never_open', (rate == 0).float().mean()),
            ('always_open', (rate == 1).float().mean()),
        ):
            scalars[f'{prefix}gates/{name}/{site}'] = value.item()
    return scalars


def _step(runner: Runner) -> int:
    """The step at which the ``LoggerHook`` logs validations."""
    if runner._train_loop is None or isinstance(runner._train_loop, dict):
        return 0  # a test alone
    loggers = [x for x in runner.hooks if isinstance(x, LoggerHook)]
    by_epoch = all(logger.log_metric_by_epoch for logger in loggers)
    return runner.epoch if by_epoch else runner.iter
