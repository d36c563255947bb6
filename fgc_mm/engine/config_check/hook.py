"""Contradictions of a config, found before the first step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmengine.dataset import BaseDataset
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmpretrain.models.classifiers import ImageClassifier
from mmpretrain.registry import DATASETS

from fgc_mm.engine.config_check.class_names import (
    Names,
    class_names,
    compare_classes,
    compare_with_head,
    describe,
)
from fgc_mm.engine.config_check.first_batch import check_labels, first_batch
from fgc_mm.engine.config_check.label_counts import LabelCounts, class_numbers
from fgc_mm.engine.config_check.metric_names import (
    check_waiting,
    process,
    reported,
)
from fgc_mm.engine.config_check.trial_model import (
    trial_copy,
    try_losses,
    try_prediction,
)
from fgc_mm.engine.loss_progress_hook import bare_model
from fgc_mm.registry import HOOKS
from fgc_mm.reliability.random_states import (
    random_states,
    restore_random_states,
)
from fgc_mm.reliability.together import together


@HOOKS.register_module()
class ConfigCheckHook(Hook):
    """Tries what the config names before the first step.

    The data sets are compared with each other and with the head, and each
    is described in one line of the log. Then up to 8 images go through the
    training pipeline, the model and all its losses, and 8 of the validation
    set through the model and the evaluator, and ``save_best`` is looked up
    among what that reports. In a test: the test set, the model and the
    evaluator, and the classes that the checkpoint was trained for.

    Nothing of the run changes: a copy of the model is tried (parameters and
    memory banks, which a forward pass only reads, are shared), the data
    loaders are not read, and the random states are put back. All ranks try
    the same images, and where one of them fails all stop.

    Raises:
        FGCError: Two data sets number their classes differently, a label is
            no class of the head, images of a batch differ in size, have no
            label or several, a metric wants more classes than there are,
            ``save_best`` names no metric, and what model and losses refuse.
    """

    # after the memory banks are built, before signals are listened for
    priority = 'LOW'

    def __init__(self) -> None:
        self._trained: Names | None = None  # classes of the checkpoint

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep the classes that the checkpoint was trained for."""
        meta = checkpoint.get('meta')
        named = meta.get('dataset_meta') if isinstance(meta, dict) else None
        self._trained = class_names(named)

    def before_train(self, runner: Runner) -> None:
        """Compare the data sets, and try a step and a validation."""
        with _random_states_kept():
            with together():
                _compare(runner, _data_sets(runner))
                batch = first_batch(runner.train_dataloader, 'train')
                check_labels(batch, _head(bare_model(runner)))
                val = runner.val_loop and first_batch(
                    runner.val_dataloader, 'val'
                )
            with together():
                self._try_training(runner, batch, val)

    def before_test(self, runner: Runner) -> None:
        """Compare the test set with the checkpoint, and try a batch."""
        with _random_states_kept():
            with together():
                sets = {'test': runner.test_dataloader.dataset}
                _compare(runner, sets, ('the checkpoint', self._trained))
                batch = first_batch(runner.test_dataloader, 'test')
            with together():
                model = _classifier(runner, batch)
                if model is not None:
                    samples = try_prediction(model, batch, settled=True)
                    process(runner.test_evaluator, batch, samples)

    def _try_training(self, runner: Runner, batch: Any, val: Any) -> None:
        model = _classifier(runner, batch)
        if model is None:
            return
        try_losses(model, batch, runner)
        if not val:
            return
        samples = try_prediction(model, val, settled=False)
        seen = process(runner.val_loop.evaluator, val, samples)
        metrics = reported(seen, len(samples))
        if metrics is not None:
            check_waiting(runner, list(metrics))


def _compare(
    runner: Runner,
    sets: dict[str, BaseDataset],
    known: tuple[str, Names | None] | None = None,
) -> None:
    """Each data set with the head, and with classes that are known.

    Args:
        runner: The runner.
        sets: By name.
        known: Whose classes are known in a test, and these; by default they
            are those of the first data set.
    """
    head = _head(bare_model(runner))
    first, names = known or ('', None)
    for name, dataset in sets.items():
        own, title = class_names(dataset), f'the {name} set'
        labels = LabelCounts.of(dataset)
        runner.logger.info(describe(name, dataset, labels))
        unknown = names is None
        folders = hasattr(dataset, 'folder_to_idx')
        found = [
            compare_classes(first, names, title, own),
            # the others agree with the first one, so it speaks for them
            (unknown or known is not None)
            and compare_with_head(
                title,
                own,
                class_numbers(head).get(''),
                by_folders=unknown and folders and known is not None,
            ),
        ]
        for warning in filter(None, found):
            runner.logger.warning(warning)
        labels.check(name, head, len(own) if own else None)
        if names is None:
            first, names = title, own


def _data_sets(runner: Runner) -> dict[str, BaseDataset]:
    sets = {'train': runner.train_dataloader.dataset}
    if runner.val_loop is not None:
        sets['val'] = runner.val_dataloader.dataset
    test = _test_set(runner)
    return sets if test is None else {**sets, 'test': test}


def _test_set(runner: Runner) -> BaseDataset | None:
    """The test set of the config, unless it is the validation's."""
    loaders = [
        runner.cfg.get(name) or {}
        for name in ('test_dataloader', 'val_dataloader', 'train_dataloader')
    ]
    cfg, *others = [loader.get('dataset') for loader in loaders]
    if not isinstance(cfg, dict) or cfg in others:
        return None
    try:
        return DATASETS.build(cfg)
    except Exception as error:  # it may lie on another machine
        runner.logger.warning(
            f'The test set cannot be read here, so its classes are not '
            f'compared: {" ".join(str(error).split())}'
        )
        return None


def _classifier(runner: Runner, batch: Any) -> ImageClassifier | None:
    """A copy of the model to try, if it is one that can be tried."""
    known = isinstance(bare_model(runner), ImageClassifier)
    usual = isinstance(batch, dict) and 'data_samples' in batch
    return trial_copy(runner) if known and usual else None


def _head(model: BaseModel) -> Any:
    known = isinstance(model, ImageClassifier) and model.with_head
    return model.head if known else None


@contextmanager
def _random_states_kept() -> Iterator[None]:
    states = random_states()
    try:
        yield
    finally:
        restore_random_states(states)
