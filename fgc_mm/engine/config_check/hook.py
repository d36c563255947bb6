"""Finds errors in a config before the first training step."""

from __future__ import annotations

from typing import Any

from mmengine.dataset import BaseDataset
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmpretrain.models.classifiers import ImageClassifier
from mmpretrain.registry import DATASETS

from fgc_mm.engine.config_check.averaged_state import (
    check_averaged_buffers,
)
from fgc_mm.engine.config_check.class_names import (
    Names,
    class_names,
    compare_classes,
    compare_members,
    compare_with_head,
    describe,
)
from fgc_mm.engine.config_check.first_batch import (
    check_labels,
    ends_with_one_image,
    first_batch,
)
from fgc_mm.engine.config_check.label_counts import LabelCounts, class_numbers
from fgc_mm.engine.config_check.metric_names import (
    check_monitored,
    process_batch,
    reported_metrics,
)
from fgc_mm.engine.config_check.trial_model import (
    trial_copy,
    try_losses,
    try_prediction,
)
from fgc_mm.engine.loss_progress_hook import unwrapped_model
from fgc_mm.registry import HOOKS
from fgc_mm.reliability.random_states import same_random_states
from fgc_mm.reliability.rank_errors import raise_on_all_ranks


@HOOKS.register_module()
class ConfigCheckHook(Hook):
    """Checks data sets, model, losses and evaluator before the first step.

    The data sets are compared with each other and with the head, and each
    is described in one line of the log. Then up to 8 images go through the
    training pipeline, the model and all its losses (and a single one, if the
    last batch of an epoch has one image only), and up to 8 of the
    validation set through the model and the evaluator; ``save_best`` must be
    among the metrics that the evaluator reports. Before a test, the hook
    checks the test set, the model, the evaluator, and the class names stored
    in the checkpoint.

    The run itself does not change: a copy of the model is used (it shares
    parameters and memory banks, which a forward pass only reads), the data
    loaders are not iterated over, and the random states are restored. All
    ranks use the same images, and if the check fails on one all stop.

    Raises:
        FGCError: Two data sets number their classes differently, a label is
            not a class of the head, images of a batch differ in size or
            have no label or several, ``topk`` of a metric exceeds the number
            of classes, ``save_best`` is not a reported metric, an EMAHook
            averages the state of a method, or the model or a loss raises it.
    """

    # after the memory banks are built, before signal handlers are installed
    priority = 'LOW'

    def __init__(self) -> None:
        self._trained: Names | None = None  # classes of the checkpoint

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Store the class names of the checkpoint."""
        meta = checkpoint.get('meta')
        named = meta.get('dataset_meta') if isinstance(meta, dict) else None
        self._trained = class_names(named)

    def before_train(self, runner: Runner) -> None:
        """Compare the data sets; run one training and one validation batch."""
        check_averaged_buffers(runner)
        with same_random_states():
            with raise_on_all_ranks():
                _compare(runner, _data_sets(runner))
                loader = runner.train_dataloader
                batch = first_batch(loader, 'train')
                check_labels(batch, _head(unwrapped_model(runner)))
                val = runner.val_loop and first_batch(
                    runner.val_dataloader, 'val'
                )
            with raise_on_all_ranks():
                self._try_training(runner, batch, val)
                ends = ends_with_one_image(loader)
                if ends and runner.max_iters >= len(loader):
                    last = first_batch(loader, 'train', most=1)
                    self._try_training(runner, last, None)

    def before_test(self, runner: Runner) -> None:
        """Compare the test set with the checkpoint; run one batch."""
        with same_random_states():
            with raise_on_all_ranks():
                sets = {'test': runner.test_dataloader.dataset}
                _compare(runner, sets, ('the checkpoint', self._trained))
                batch = first_batch(runner.test_dataloader, 'test')
            with raise_on_all_ranks():
                model = _classifier(runner, batch)
                if model is not None:
                    samples = try_prediction(model, batch, trained=True)
                    process_batch(runner.test_evaluator, batch, samples)

    def _try_training(self, runner: Runner, batch: Any, val: Any) -> None:
        model = _classifier(runner, batch)
        if model is None:
            return
        try_losses(model, batch, runner)
        if not val:
            return
        samples = try_prediction(model, val, trained=False)
        evaluator = process_batch(runner.val_loop.evaluator, val, samples)
        metrics = reported_metrics(evaluator, len(samples))
        if metrics is not None:
            check_monitored(runner, list(metrics))


def _compare(
    runner: Runner,
    sets: dict[str, BaseDataset],
    known: tuple[str, Names | None] | None = None,
) -> None:
    """Compare each named data set with the head and with known classes.

    Args:
        known: In a test, the source of the known class names and the names;
            by default the first data set and its names.
    """
    head = _head(unwrapped_model(runner))
    first, names = known or ('', None)
    for name, dataset in sets.items():
        own, title = class_names(dataset), f'the {name} set'
        labels = LabelCounts.of(dataset)
        runner.logger.info(describe(name, dataset, labels))
        unknown = names is None
        folders = hasattr(dataset, 'folder_to_idx')
        found = [
            *compare_members(title, dataset),
            compare_classes(first, names, title, own),
            # data sets after the first are compared with it, not the head
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
    """The test set of the config, unless it equals the validation set."""
    loaders = [
        runner.cfg.get(name) or {}
        for name in ('test_dataloader', 'val_dataloader', 'train_dataloader')
    ]
    cfg, *others = [loader.get('dataset') for loader in loaders]
    if not isinstance(cfg, dict) or cfg in others:
        return None
    try:
        return DATASETS.build(cfg)
    except Exception as error:  # it may be on another machine
        runner.logger.warning(
            f'The test set cannot be read, so its classes are not '
            f'compared: {" ".join(str(error).split())}'
        )
        return None


def _classifier(runner: Runner, batch: Any) -> ImageClassifier | None:
    """A copy of the model, if model and batch are those of a classifier."""
    is_classifier = isinstance(unwrapped_model(runner), ImageClassifier)
    has_samples = isinstance(batch, dict) and 'data_samples' in batch
    return trial_copy(runner) if is_classifier and has_samples else None


def _head(model: BaseModel) -> Any:
    has_head = isinstance(model, ImageClassifier) and model.with_head
    return model.head if has_head else None
