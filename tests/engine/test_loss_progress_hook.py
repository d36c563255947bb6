"""The progress of the run, as the losses receive it."""

import pytest
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


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


def test_a_dense_model_is_left_alone(digits, tmp_path):
    cfg = digits.tiny_config(tmp_path, epochs=1)
    cfg.model.type = 'ImageClassifier'
    cfg.model.backbone = cfg.model.pop('backbone').backbone
    del cfg.model['gate_losses']
    cfg.custom_hooks = [dict(type='fgc_mm.LossProgressHook')]
    digits.start(cfg).train()
