"""The progress of the run, as the losses receive it."""

import itertools

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import DATASETS, HOOKS
from torch.utils.data import IterableDataset

from fgc_mm.errors import FGCError


@HOOKS.register_module(force=True)
class NoteHook(Hook):
    """Records the progress that the losses receive."""

    def after_train_iter(
        self, runner, batch_idx, data_batch=None, outputs=None
    ):
        progress = runner.model.progress
        gates = runner.model.backbone.gates.values()
        assert all(gate.progress is progress for gate in gates)
        runner.noted = [
            *getattr(runner, 'noted', ()),
            (progress.epoch, progress.iteration),
        ]


def noted(digits, cfg):
    cfg.custom_hooks.append(dict(type='NoteHook'))
    runner = digits.start(cfg)
    runner.train()
    return runner.noted


def test_epochs_and_iterations_that_are_finished(digits, tmp_path):
    steps = noted(digits, digits.tiny_config(tmp_path))
    assert steps == [(i // 5, i) for i in range(10)]


def test_a_resumed_run_continues_to_count(digits, tmp_path):
    noted(digits, digits.tiny_config(tmp_path, epochs=1))
    cfg = digits.tiny_config(tmp_path, epochs=2, resume=True)
    assert noted(digits, cfg) == [(1, i) for i in range(5, 10)]


@pytest.mark.parametrize('sampler', ['InfiniteSampler', 'DefaultSampler'])
def test_an_iteration_based_run_counts_epochs_too(digits, tmp_path, sampler):
    options = {'train_dataloader.sampler.type': sampler}
    cfg = digits.tiny_config(tmp_path, **options)
    cfg.train_cfg = dict(by_epoch=False, max_iters=7)
    cfg.param_scheduler = None
    cfg.default_hooks.checkpoint.by_epoch = False
    assert noted(digits, cfg) == [(i // 5, i) for i in range(7)]


def test_an_infinite_sampler_of_two_ranks(two_ranks):
    # 40 images, 2 x 10 a step: iteration 5 is in the third epoch
    assert [result['infinite'] for result in two_ranks] == [2, 2]


def test_without_exact_resume_each_rank_draws_its_own_noise(two_ranks):
    for result in two_ranks:
        one, other = result['loss_progress']['draws']
        assert not torch.equal(one, other)


def test_a_dense_model_is_left_alone(digits, tmp_path):
    cfg = digits.tiny_config(tmp_path, epochs=1)
    cfg.model.type = 'ImageClassifier'
    cfg.model.backbone = cfg.model.pop('backbone').backbone
    del cfg.model['gate_losses']
    cfg.custom_hooks = [dict(type='fgc_mm.LossProgressHook')]
    digits.start(cfg).train()


@DATASETS.register_module(force=True)
class Endless(IterableDataset):
    """The images of a data set, again and again; it has no length."""

    def __init__(self, images):
        self.images = DATASETS.build(images)

    def __iter__(self):
        return itertools.cycle(self.images[i] for i in range(16))


def endless(digits, folder):
    """A run of iterations over a stream, with constant weights."""
    cfg = digits.tiny_config(folder)
    for loss in cfg.model.gate_losses:
        loss.loss_weight = 0.1
    cfg.train_dataloader.dataset = dict(
        type='Endless', images=cfg.train_dataloader.dataset
    )
    cfg.train_dataloader.sampler = None
    cfg.train_cfg = dict(by_epoch=False, max_iters=3)
    cfg.param_scheduler = None
    cfg.default_hooks.checkpoint.by_epoch = False
    cfg.default_hooks.logger = None  # mmengine's needs a length
    return cfg


def without_coupling(cfg):
    cfg.model.gate_losses.pop(2)
    cfg.custom_hooks = [
        hook for hook in cfg.custom_hooks if 'MemoryBank' not in hook['type']
    ]
    return cfg


def test_a_stream_without_a_length_is_one_epoch(digits, tmp_path):
    cfg = without_coupling(endless(digits, tmp_path))
    assert noted(digits, cfg) == [(0, 0), (0, 1), (0, 2)]


RISE = dict(start_value=0.0, end_value=1.0, begin=1, end=2)


@pytest.mark.parametrize('name', ['L0Loss', 'ManiDPGate'])
def test_what_needs_epochs_needs_a_length(digits, tmp_path, name):
    cfg = without_coupling(endless(digits, tmp_path))
    if name == 'L0Loss':
        cfg.model.gate_losses[1].loss_weight = RISE
    else:
        cfg.model.backbone.gate = dict(type='fgc_mm.ManiDPGate')
    runner = digits.start(cfg)
    with pytest.raises(FGCError, match=rf'^{name} changes with .* length\.$'):
        runner.train()


def test_a_schedule_of_iterations_needs_no_length(digits, tmp_path):
    cfg = without_coupling(endless(digits, tmp_path))
    cfg.model.gate_losses[1].loss_weight = dict(RISE, by_epoch=False)
    assert len(noted(digits, cfg)) == 3


def test_coupling_needs_the_number_of_images(digits, tmp_path):
    runner = digits.start(endless(digits, tmp_path))
    with pytest.raises(FGCError, match='is a Endless without a length'):
        runner.train()


def test_a_run_from_other_weights_begins_its_means_anew(digits, tmp_path):
    """The other run ended in the same epoch; a resumed one continues."""

    def images(name, epochs, **options):
        cfg = without_coupling(digits.tiny_config(tmp_path / name, epochs))
        cfg.model.backbone.gate = dict(type='fgc_mm.ManiDPGate')
        cfg.merge_from_dict(options)
        runner = digits.start(cfg)
        runner.train()
        return {int(g.images) for g in runner.model.backbone.gates.values()}

    once = images('first', 1)
    (number,) = once
    path = str(tmp_path / 'first' / 'epoch_1.pth')
    assert images('second', 1, load_from=path) == once
    resumed = images('third', 2, load_from=path, resume=True)
    assert resumed == once and number > 0
