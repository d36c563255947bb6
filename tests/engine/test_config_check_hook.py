"""Contradictions of a config are found before the first step."""

import logging
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.dataset import InfiniteSampler, default_collate
from mmengine.evaluator import Evaluator
from mmengine.hooks import CheckpointHook, EarlyStoppingHook, EMAHook
from mmengine.logging import MMLogger
from mmpretrain.evaluation import Accuracy
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch.utils.data import BatchSampler, DataLoader, IterableDataset

from fgc_mm.engine.config_check import hook as config_check_hook
from fgc_mm.engine.config_check.averaged_state import (
    check_averaged_buffers,
)
from fgc_mm.engine.config_check.class_names import (
    compare_classes,
    compare_members,
    compare_with_head,
)
from fgc_mm.engine.config_check.first_batch import (
    check_labels,
    ends_with_one_image,
    first_batch,
)
from fgc_mm.engine.config_check.label_counts import LabelCounts
from fgc_mm.engine.config_check.metric_names import (
    check_monitored,
    process_batch,
    reported_metrics,
)
from fgc_mm.errors import FGCError
from fgc_mm.reliability import rank_errors as module
from fgc_mm.reliability.random_states import random_states
from fgc_mm.reliability.rank_errors import raise_on_all_ranks

COUPLING = 'model.gate_losses.2'
EASY = dict(type='fgc_mm.SaliencyL1Loss', easiness=True, loss_weight=0.01)


def small(digits, folder, **options):
    """A run of 16 + 16 digits with a validation."""
    cfg = digits.tiny_config(
        folder,
        epochs=1,
        validate=True,
        **{
            'train_dataloader.dataset.indices': 16,
            'val_dataloader.dataset.indices': 16,
            'train_cfg.val_interval': 1,
            'model.backbone.sites': ['layer3.2.conv1'],
            f'{COUPLING}.sites': 1,
            **options,
        },
    )
    cfg.test_dataloader = cfg.val_dataloader
    return cfg


def refusal(digits, folder, **options):
    """The sentence with which a run ends before its first step."""
    runner = digits.start(small(digits, folder, **options))
    with pytest.raises(FGCError) as caught:
        runner.train()
    assert runner.iter == 0
    return str(caught.value)


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (
            {'val_evaluator.0.topk': (1, 11)},
            r'topk=\(1, 11\) of Accuracy .* 11 best of 10 classes',
        ),
        (
            {'default_hooks.checkpoint.save_best': 'accuracy/top3'},
            r"save_best='accuracy/top3' .* reports \(accuracy/top1, macs/",
        ),
        (
            {'val_dataloader.dataset.classes': list('1023456789')},
            r"class 0 is '0' in the train set and '1' in the val set",
        ),
        ({'model.head.num_classes': 7}, r'has 10 classes .* the head 7'),
        (
            {'train_dataloader.dataset.classes': list('abc')},
            r'has the label \d, which is outside 0 to 2: the data set has 3',
        ),
        # 16 images in batches of 5: the last one has a single image
        (
            {
                'train_dataloader.batch_size': 5,
                'train_dataloader.drop_last': False,
            },
            r'a training batch of 1 image has no variance',
        ),
        # what acts at the end of the schedule only
        (
            {
                f'{COUPLING}.loss_weight': dict(
                    start_value=0.0, end_value=1.0, begin=1, end=1
                ),
                f'{COUPLING}.warmup_epochs': 0,
                'train_cfg.max_epochs': 2,
                'train_dataloader.dataset.pipeline': [
                    dict(type='PackInputs', meta_keys=())
                ],
            },
            r'an image has no sample_idx',
        ),
    ],
)
def test_a_contradiction_ends_the_run_before_its_first_step(
    digits, tmp_path, options, words
):
    assert re.search(words, refusal(digits, tmp_path, **options))


@pytest.mark.parametrize(
    ('images', 'size', 'drop', 'alone'),
    [(16, 5, False, True), (16, 5, True, False), (15, 5, False, False),
     (17, 5, False, False), (3, 1, False, False), (1, 5, False, True)],
)  # fmt: skip
def test_a_last_batch_of_one_image(images, size, drop, alone):
    loader = DataLoader(range(images), batch_size=size, drop_last=drop)
    assert ends_with_one_image(loader) == alone
    last = [len(batch) for batch in loader][-1] if len(loader) else 0
    assert alone == (last == 1 and size > 1)


class Stream(IterableDataset):
    def __iter__(self):
        return iter(range(16))

    def __len__(self):
        return 16


class Joined(BatchSampler):
    """Adds an incomplete batch to the one before it."""

    def __iter__(self):
        *first, last = super().__iter__()
        yield from [*first[:-1], first[-1] + last]


@pytest.mark.parametrize(
    'loader',
    [
        DataLoader(
            range(16), batch_size=5, sampler=InfiniteSampler(range(16))
        ),
        DataLoader(Stream(), batch_size=5),
        DataLoader(range(16), batch_sampler=Joined(range(16), 5, False)),
        DataLoader(range(16), batch_sampler=[[0, 1], [2]]),
        DataLoader(range(16), batch_size=None),
    ],
)
def test_where_no_batch_is_known_to_be_the_last(loader):
    assert not ends_with_one_image(loader)


def test_nothing_of_the_run_changes(digits, tmp_path, monkeypatch):
    """The same bits with and without; and one line per data set."""
    seen = {}
    Hook = config_check_hook.ConfigCheckHook
    original = Hook.before_train

    def watched(hook, runner):
        before = snapshot(runner)
        original(hook, runner)
        seen.update(before=before, after=snapshot(runner))

    def snapshot(runner):
        loss = digits.coupling(runner)
        states = random_states()
        return {
            **{f'weights.{k}': v for k, v in digits.weights(runner).items()},
            **{f'banks.{k}': v for k, v in digits.bank_rows(loss).items()},
            'python': states['python'],
            'numpy': states['numpy'],
            'torch': states['torch'],
            'pending': torch.tensor(len(loss._pending)),
        }

    monkeypatch.setattr(Hook, 'before_train', watched)
    lines = []
    results = []
    for checked in (True, False):
        cfg = small(digits, tmp_path / str(checked))
        cfg.model.gate_losses.append(EASY)  # it counts images and epochs
        if not checked:
            del cfg.default_hooks.config_check
        runner = digits.start(cfg)
        monkeypatch.setattr(runner.logger, 'info', lines.append)
        runner.train()
        loss = digits.coupling(runner)
        results.append({**digits.weights(runner), **digits.bank_rows(loss)})
    assert digits.equal(seen['before'], seen['after'])
    assert digits.equal(*results)
    said = [x for x in lines if isinstance(x, str) and ' set: 16 images' in x]
    assert [line.partition(' ')[0] for line in said] == ['train', 'val']
    assert '10 classes (' in said[0]


def test_a_test_compares_with_what_the_checkpoint_was_trained_for(
    digits, tmp_path
):
    cfg = small(digits, tmp_path)
    runner = digits.start(cfg)
    hook = next(
        h
        for h in runner.hooks
        if isinstance(h, config_check_hook.ConfigCheckHook)
    )
    meta = dict(dataset_meta=dict(classes=('9', *'012345678')))
    hook.after_load_checkpoint(runner, dict(meta=meta))
    with pytest.raises(FGCError, match=r"class 0 is '9' in the checkpoint"):
        runner.test()
    hook.after_load_checkpoint(runner, {})
    runner.test_evaluator.metrics[0].topk = (11,)
    with pytest.raises(FGCError, match=r'11 best of 10'):
        runner.test()


A = tuple('abcd')


@pytest.mark.parametrize(
    ('others', 'said'),
    [
        (A, None),
        (None, None),
        (A[:3], 'have 4 and 3 classes; the common ones agree'),
        (tuple('wxyz'), 'have different names for all 4 classes'),
    ],
)
def test_classes_that_agree(others, said):
    warning = compare_classes('one', A, 'the other', others)
    assert (said is None and warning is None) or said in warning


@pytest.mark.parametrize('others', ['acd', 'abdc', 'bcde', 'xyz', '.abcd'])
def test_classes_that_do_not_agree(others):
    with pytest.raises(FGCError, match=r'class \d is .* number their classes'):
        compare_classes('one', A, 'the other', tuple(others))


def test_classes_of_data_sets_in_a_data_set():
    def data(*names, **others):
        return SimpleNamespace(metainfo=dict(classes=names), **others)

    def joined(*parts):
        return data(*'abcd', datasets=[data(*'abcd'), *parts])

    wrapped = data('a', dataset=data(*'abcd'))
    assert compare_members('it', joined(wrapped)) == [None]
    (warning,) = compare_members('it', joined(data(*'abc')))
    assert 'data set 2 in it have 4 and 3 classes' in warning
    inner = data(*'abcd', datasets=[data(*'abcd'), data(*'bcd')])
    for other in (data(*'bcd'), data('a', dataset=data(*'bcd')), inner):
        with pytest.raises(FGCError, match=r"class 0 is 'a' in the first "):
            compare_members('it', joined(other))


def test_classes_and_the_head():
    assert compare_with_head('it', A, 4, True) is None
    assert compare_with_head('it', A, None, True) is None
    assert 'other 2' in compare_with_head('it', A, 6, False)
    with pytest.raises(FGCError, match=r'4 class folders .* 6 classes'):
        compare_with_head('it', A, 6, True)
    with pytest.raises(FGCError, match=r'4 classes \(a, b, c, d\) and the h'):
        compare_with_head('it', A, 3, False)


class Images:
    """A data set of labels and sizes."""

    def __init__(self, labels, sizes=()):
        self.labels, self.sizes = labels, sizes

    def __len__(self):
        return len(self.labels)

    def get_data_info(self, index):
        return dict(gt_label=self.labels[index])

    def __getitem__(self, index):
        sample = DataSample()
        if self.labels[index] is not None:
            sample.set_gt_label(self.labels[index])
        size = self.sizes[index] if self.sizes else 4
        return dict(inputs=torch.zeros(3, size, size), data_samples=sample)


def head(kind='LinearClsHead'):
    return MODELS.build(dict(type=kind, num_classes=3, in_channels=2))


@pytest.mark.parametrize(
    ('labels', 'words'),
    [
        ([0, 1, 3], 'image 2 of the train set has the label 3, .* 0 to 2'),
        ([0, -1], 'image 1 .* the label -1'),
        ([[0, 2], [1, 5]], 'image 1 .* the label 5.*num_classes=6'),
        ([0, None], 'image 1 of the train set has no label, but others'),
    ],
)
def test_labels_outside_the_head(labels, words):
    with pytest.raises(FGCError, match=words):
        LabelCounts.of(Images(labels)).check('train', head(), None)


def test_labels_inside_the_head():
    for labels in ([0, 1, 2], [[0, 2], [], [1]], [np.int64(2)], [None, None]):
        LabelCounts.of(Images(labels)).check('train', head(), 3)


def loader(labels, sizes=()):
    return SimpleNamespace(
        dataset=Images(labels, sizes),
        batch_size=16,
        collate_fn=default_collate,
        pin_memory=False,
    )


def test_images_of_unequal_size():
    batch = first_batch(loader([0, 1, 2] * 9), 'train')
    assert batch['inputs'].shape == (8, 3, 4, 4)
    with pytest.raises(FGCError, match=r'image 1 of .* 3x5x5 and image 0'):
        first_batch(loader([0, 1], [4, 5]), 'train')


def test_images_on_a_device_cannot_be_pinned():
    pinned = loader([0, 1])
    pinned.pin_memory = True
    first_batch(pinned, 'val')
    pinned.dataset = [
        dict(inputs=torch.zeros(3, 4, 4, device=device), data_samples=None)
        for device in ('cpu', 'meta')
    ]
    with pytest.raises(FGCError, match=r'on meta.*val_dataloader.pin_memory='):
        first_batch(pinned, 'val')


@pytest.mark.parametrize(
    ('kind', 'labels', 'words'),
    [
        ('LinearClsHead', [0, None], r'has no gt_label, which LinearClsHead'),
        ('LinearClsHead', [[0], [0, 1]], r'has the labels \[0, 1\]'),
        ('MultiLabelLinearClsHead', [[0, 1], None], r'has no gt_label'),
        ('MultiLabelLinearClsHead', [[0, 1], [2]], None),
        ('LinearClsHead', [0, 2], None),
    ],
)
def test_labels_are_of_the_kind_of_the_head(kind, labels, words):
    batch = first_batch(loader(labels), 'train')
    if words is None:
        check_labels(batch, head(kind))
        return
    with pytest.raises(FGCError, match=words):
        check_labels(batch, head(kind))


def predictions(labels=True):
    found = [DataSample().set_pred_score(torch.rand(3)) for _ in range(4)]
    for number, sample in enumerate(found):
        if labels:
            sample.set_gt_label(number % 3)
    return found


def test_an_evaluator_without_labels_or_with_few_images():
    with pytest.raises(FGCError, match=r"needs 'gt_label', which the images"):
        process_batch(Evaluator(Accuracy()), None, predictions(labels=False))

    class Choosy(Accuracy):
        def compute_metrics(self, results):
            raise ValueError('one class only')

    evaluator = Evaluator([Accuracy(), Choosy()])
    seen = process_batch(evaluator, None, predictions())
    assert reported_metrics(seen, 4) is None
    assert not evaluator.metrics[0].results  # a copy was tried
    seen = process_batch(Evaluator(Accuracy(topk=(1, 3))), None, predictions())
    assert list(reported_metrics(seen, 4)) == [
        'accuracy/top1',
        'accuracy/top3',
    ]


def test_all_that_waits_for_a_metric():
    plateau = SimpleNamespace(monitor='loss')
    runner = SimpleNamespace(
        hooks=[CheckpointHook(save_best='auto')],
        param_schedulers=[SimpleNamespace()],
    )
    check_monitored(runner, ['a'])
    for hook, words in (
        (EarlyStoppingHook(monitor='b/acc'), "EarlyStoppingHook='b/acc'"),
        (CheckpointHook(save_best=['auc']), "save_best='auc'"),
    ):
        runner.hooks = [hook]
        with pytest.raises(FGCError, match=words):
            check_monitored(runner, ['a'])
    runner.hooks, runner.param_schedulers = [], dict(x=[plateau])
    with pytest.raises(FGCError, match=r"monitor of SimpleNamespace='loss'"):
        check_monitored(runner, ['a'])


@pytest.mark.parametrize('failing', [0, 1])
def test_where_one_rank_fails_all_stop(monkeypatch, failing):
    others = [None, None]
    others[failing] = 'no such file'

    def gather(own):
        return [own, others[1]] if failing else [others[0], own]

    monkeypatch.setattr(module, 'all_gather_object', gather)
    refused = pytest.raises(FGCError, match=rf'rank {failing} cannot start')
    with refused, raise_on_all_ranks():
        pass
    with pytest.raises(KeyError), raise_on_all_ranks():
        raise KeyError('own')


def test_tables_of_the_trial_are_not_logged():
    logger = MMLogger.get_current_instance()
    level = logger.level

    class Loud(Accuracy):
        def compute_metrics(self, results):
            assert logger.level == logging.ERROR
            return {}

    assert (
        reported_metrics(
            process_batch(Evaluator(Loud()), None, predictions()), 4
        )
        == {}
    )
    assert logger.level == level


@pytest.mark.parametrize(
    ('gate', 'refused'),
    [
        (dict(type='fgc_mm.ManiDPGate'), 'ManiDPGate (epoch, images, '),
        (
            dict(
                type='fgc_mm.FBSGate',
                density=dict(start_value=1.0, end_value=0.5, begin=0, end=4),
            ),
            'FBSGate (trained_density)',
        ),
        (dict(type='fgc_mm.FBSGate', density=0.5), None),
        (
            dict(
                type='fgc_mm.BinaryConcreteGate',
                noise=dict(start_value=1.0, end_value=0.5, begin=0, end=4),
            ),
            None,
        ),
    ],
)
def test_an_average_of_the_state_of_methods_is_refused(gate, refused):
    model = MODELS.build(
        dict(
            type='fgc_mm.GatedBackbone',
            backbone=dict(type='fgc_mm.CifarResNet', base_channels=4),
            gate=gate,
            sites=['layer1.0.conv1'],
        )
    )
    hook = EMAHook(update_buffers=True)
    runner = SimpleNamespace(model=model, hooks=[hook])
    if refused is None:
        check_averaged_buffers(runner)
        return
    with pytest.raises(FGCError, match=re.escape(refused)):
        check_averaged_buffers(runner)
    hook.ema_cfg.pop('update_buffers')
    check_averaged_buffers(runner)


def test_a_run_with_such_an_average_ends_before_its_first_step(
    digits, tmp_path
):
    average = dict(type='EMAHook', update_buffers=True)
    cfg = small(digits, tmp_path)
    cfg.model.gate_losses.append(EASY)
    cfg.custom_hooks.append(average)
    runner = digits.start(cfg)
    with pytest.raises(FGCError, match='Easiness'):
        runner.train()
    assert runner.iter == 0
