"""A run resumes only from what holds the whole state of training."""

import shutil

import pytest
import torch
from mmengine.hooks import EMAHook, Hook
from mmengine.optim import ReduceOnPlateauLR
from torch import nn

from fgc_mm.errors import FGCError
from fgc_mm.reliability.latest_checkpoint import latest_checkpoint
from fgc_mm.reliability.resumable import (
    changed_schedules,
    check_resumable,
)

VALIDATED = {
    'validate': True,
    'train_cfg.val_interval': 1,
    'val_dataloader.dataset.indices': 40,
    'default_hooks.checkpoint.save_best': 'accuracy/top1',
}


@pytest.fixture(scope='module')
def run(digits, tmp_path_factory):
    """The folder of a run of one epoch, with its best checkpoint."""
    folder = tmp_path_factory.mktemp('run')
    digits.start(digits.tiny_config(folder, 1, **VALIDATED)).train()
    return folder


def resume(digits, folder, path=None, **options):
    """The message of a training that resumes from a file."""
    options = {'resume': True, 'load_from': path and str(path), **options}
    with pytest.raises(FGCError) as error:
        digits.start(digits.tiny_config(folder, 2, **options)).train()
    assert '\n' not in str(error.value)
    return str(error.value)


def without(path, source, *keys):
    """A copy of a checkpoint that lacks some entries."""
    state = torch.load(source, weights_only=False)
    torch.save({k: v for k, v in state.items() if k not in keys}, path)
    return path


def test_the_best_one_is_not_resumed_from(digits, run, tmp_path):
    (best,) = run.glob('best_*.pth')
    for check in (check_resumable, lambda x: resume(digits, tmp_path, x)):
        with pytest.raises(FGCError) as error:
            check(best)
            raise FGCError(check(best))
        text = str(error.value)
        assert f'{best} has no optimizer' in text
        assert 'load_from instead of --resume' in text
        assert 'the file of the last epoch' in text


@pytest.mark.parametrize('key', ['optimizer', 'param_schedulers'])
def test_what_lacks_one_entry_is_not_resumed_from(digits, run, tmp_path, key):
    path = without(tmp_path / 'epoch_1.pth', run / 'epoch_1.pth', key)
    assert f'{path} has no {key}:' in resume(digits, tmp_path, path)
    # nor is it found, as a file of save_optimizer=False would be
    assert f'{path} has no {key}:' in resume(digits, tmp_path)


def test_without_schedulers_none_is_missed(run, tmp_path):
    path = tmp_path / 'epoch_1.pth'
    without(path, run / 'epoch_1.pth', 'param_schedulers')
    check_resumable(path)
    with pytest.raises(FGCError, match='has no param_schedulers:'):
        check_resumable(path, scheduled=True)
    assert latest_checkpoint(tmp_path) == (path, [])


def test_without_random_states(digits, run, tmp_path):
    path = tmp_path / 'epoch_1.pth'
    without(path, run / 'epoch_1.pth', 'fgc_random_states')
    text = resume(digits, tmp_path, path)
    assert 'has no random states' in text
    assert 'default_hooks.exact_resume.require_states=False' in text


def test_another_number_of_schedulers(digits, run, tmp_path):
    """mmengine would begin the second one anew, at the wrong epoch."""
    cfg = digits.tiny_config(tmp_path, 2)
    assert isinstance(cfg.param_scheduler, dict)
    more = [cfg.param_scheduler, dict(type='ConstantLR', end=1)]
    path = run / 'epoch_1.pth'
    text = resume(digits, tmp_path, path, param_scheduler=more)
    assert 'has 1 parameter schedulers and the config 2:' in text


@pytest.mark.parametrize(
    ('scheduler', 'change', 'said'),
    [
        (
            dict(type='CosineAnnealingLR', T_max=2, end=4),
            dict(T_max=5),
            'CosineAnnealingLR has T_max=2 in the checkpoint and 5 in the',
        ),
        (
            dict(type='MultiStepLR', milestones=[1], end=4),
            dict(milestones=[2]),
            'MultiStepLR has milestones=[1] in the checkpoint',
        ),
        # mmengine's default is the last epoch
        (
            dict(type='MultiStepLR', milestones=[2], end=2),
            dict(end=3),
            'MultiStepLR has end=2 in the checkpoint and 3 in the config',
        ),
    ],
    ids=['cosine', 'steps', 'end'],
)
def test_another_schedule_is_reported(
    digits, tmp_path, capfd, scheduler, change, said
):
    """That of the checkpoint replaces it."""

    def text(epochs, scheduler, **options):
        cfg = digits.tiny_config(tmp_path, epochs, **options)
        cfg.param_scheduler = scheduler
        digits.start(cfg).train()
        found = capfd.readouterr()
        return found.out + found.err

    text(1, scheduler)
    warning = 'continues the schedule of the checkpoint'
    assert warning not in text(2, scheduler, resume=True)
    new = text(3, scheduler | change, resume=True)
    assert said in new and new.count(warning) == 1


def test_another_learning_rate_is_reported(digits, tmp_path, capfd):
    """The schedule continues from that of the checkpoint."""
    digits.start(digits.tiny_config(tmp_path, 1)).train()
    options = {'resume': True, 'optim_wrapper.optimizer.lr': 0.777}
    digits.start(digits.tiny_config(tmp_path, 2, **options)).train()
    found = capfd.readouterr()
    assert 'in the checkpoint and [0.777] in' in found.out + found.err


class OwnScheduler:
    def state_dict(self):
        return dict(table=torch.ones(2), steps=(1, 2), end=3)


def test_settings_that_cannot_be_compared_are_left_out():
    old = dict(table=torch.zeros(2), steps=[1, 2], end=4)
    for saved, found in (
        (
            old,
            ['OwnScheduler has end=4 in the checkpoint and 3 in the config'],
        ),
        (None, []),
    ):
        checkpoint = dict(param_schedulers=[saved])
        assert changed_schedules(checkpoint, [OwnScheduler()]) == found


def test_a_plateau_is_not_another_schedule():
    def plateau():
        optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)
        return ReduceOnPlateauLR(optimizer, patience=1, cooldown=2)

    run = plateau()
    for loss in (1.0, 2.0, 3.0, 4.0):
        run.step(dict(loss=loss))
    state = run.state_dict()
    assert state['best'] == 1.0 and state['cooldown_counter'] == 1
    checkpoint = dict(param_schedulers=[state])
    assert changed_schedules(checkpoint, [plateau()]) == []


def test_a_copied_work_dir_resumes_from_itself(digits, run, tmp_path):
    copy = tmp_path / 'copy'
    shutil.copytree(run, copy)
    assert (copy / 'last_checkpoint').read_text() == str(run / 'epoch_1.pth')
    assert latest_checkpoint(copy) == (copy / 'epoch_1.pth', [])
    # no matter whether the original continues or is removed
    elsewhere = tmp_path / 'elsewhere' / 'epoch_7.pth'
    (copy / 'last_checkpoint').write_text(str(elsewhere))
    assert latest_checkpoint(copy) == (copy / 'epoch_1.pth', [])
    elsewhere.parent.mkdir()
    shutil.copy(run / 'epoch_1.pth', elsewhere)
    assert latest_checkpoint(copy) == (copy / 'epoch_1.pth', [])
    cfg = digits.tiny_config(copy, 2, resume=True)
    runner = digits.start(cfg)
    runner.train()
    assert runner._load_from == str(copy / 'epoch_1.pth')


def test_a_copy_has_other_times(run, tmp_path):
    """The newest is found by the numbers in the names."""
    for number in (2, 10, 1):
        shutil.copy(run / 'epoch_1.pth', tmp_path / f'epoch_{number}.pth')
    assert latest_checkpoint(tmp_path)[0] == tmp_path / 'epoch_10.pth'
    shutil.copy(run / 'epoch_1.pth', tmp_path / 'interrupted.pth')
    assert latest_checkpoint(tmp_path)[0] == tmp_path / 'interrupted.pth'


def test_an_out_dir_is_a_run_s_own(run, tmp_path):
    """A run with checkpoints in another folder is no copy."""
    work_dir, out_dir = tmp_path / 'run', tmp_path / 'out'
    work_dir.mkdir()
    shutil.copytree(run, out_dir / 'run')
    last = out_dir / 'run' / 'epoch_1.pth'
    (work_dir / 'last_checkpoint').write_text(str(last))
    # one of before the out_dir was set does not hide it
    shutil.copy(last, work_dir / 'epoch_1.pth')
    assert latest_checkpoint(work_dir, out_dir) == (last, [])
    (work_dir / 'epoch_1.pth').unlink()
    assert latest_checkpoint(work_dir, out_dir) == (last, [])
    assert latest_checkpoint(work_dir) == (last, [])


def test_another_run_s_checkpoint_is_named(digits, run, tmp_path, capfd):
    (tmp_path / 'last_checkpoint').write_text(str(run / 'epoch_1.pth'))
    digits.start(digits.tiny_config(tmp_path, 2, resume=True)).train()
    text = capfd.readouterr()
    said = f'names {run / "epoch_1.pth"}, so the run resumes from that'
    assert said in text.out + text.err


def changed(path, source, **entries):
    """A copy of a checkpoint with other entries."""
    state = torch.load(source, weights_only=False)
    torch.save(state | entries, path)
    return path


@pytest.mark.parametrize(
    ('key', 'value'),
    [
        ('optimizer', None),
        ('optimizer', {}),
        ('optimizer', dict(state={}, param_groups=[])),
        ('optimizer', dict(backbone=None)),
        ('param_schedulers', None),
        ('message_hub', {}),
        ('meta', {}),
        ('meta', dict(epoch=1)),
        ('meta', dict(epoch='1', iter=4)),
    ],
)
def test_an_entry_without_its_content(run, tmp_path, key, value):
    path = tmp_path / 'epoch_1.pth'
    changed(path, run / 'epoch_1.pth', **{key: value})
    with pytest.raises(FGCError, match=f'has no {key}:'):
        check_resumable(path, scheduled=True)


def test_an_optimizer_that_lost_its_momentum(run, tmp_path):
    whole = torch.load(run / 'epoch_1.pth', weights_only=False)
    path = tmp_path / 'epoch_1.pth'
    optimizer = dict(whole['optimizer'], state={})
    changed(path, run / 'epoch_1.pth', optimizer=optimizer)
    with pytest.raises(FGCError, match='optimizer without its state'):
        check_resumable(path)
    # plain SGD has none
    groups = [dict(group, momentum=0) for group in optimizer['param_groups']]
    plain = dict(state={}, param_groups=groups)
    check_resumable(changed(path, run / 'epoch_1.pth', optimizer=plain))
    both = dict(a=whole['optimizer'], b=plain)  # OptimWrapperDict
    check_resumable(changed(path, run / 'epoch_1.pth', optimizer=both))


@pytest.mark.parametrize(
    'states', [5, {}, dict(ranks=[]), dict(ranks=[None])], ids=str
)
def test_damaged_random_states(digits, run, tmp_path, states):
    path = tmp_path / 'epoch_1.pth'
    changed(path, run / 'epoch_1.pth', fgc_random_states=states)
    assert 'where the random states belong' in resume(digits, tmp_path, path)


def test_a_copied_run_keeps_the_best_checkpoint_of_the_original(
    digits, run, tmp_path
):
    def files(folder):
        return sorted(path.name for path in folder.glob('best_*.pth'))

    original = files(run)
    assert original == ['best_accuracy_top1_epoch_1.pth']
    path = tmp_path / 'copy'
    shutil.copytree(run, path)
    options = {**VALIDATED, 'resume': True}
    runner = digits.start(digits.tiny_config(path, 3, **options))
    accuracy = iter([0.0, 100.0])  # is better in the third epoch

    def evaluate(metrics=runner.val_evaluator.evaluate):
        return lambda size: {**metrics(size), 'accuracy/top1': next(accuracy)}

    runner.val_evaluator.evaluate = evaluate()
    runner.train()
    assert files(run) == original
    assert files(path) == ['best_accuracy_top1_epoch_3.pth']


def test_averaged_weights_are_not_resumed_as_trained_ones(digits, tmp_path):
    """EMAHook saves them in the trained ones' place, and exchanges them."""

    def runner(folder, average, epochs, **options):
        cfg = digits.tiny_config(folder, epochs, **options)
        if average:
            cfg.custom_hooks.append(dict(type='EMAHook', momentum=0.2))
        return digits.start(cfg)

    folder = tmp_path / 'averaged'
    averaged = runner(folder, True, 1)
    averaged.train()
    path = folder / 'epoch_1.pth'
    for given in (None, str(path)):  # found in the work dir, or named
        resumed = runner(folder, False, 2, resume=True, load_from=given)
        with pytest.raises(FGCError) as error:
            resumed.train()
        assert f'{path} is of a run with EMAHook' in str(error.value)
        assert 'load_from instead of --resume' in str(error.value)
    runner(folder, True, 2, resume=True).train()
    # the averaged weights are where another run looks for weights
    loaded = runner(tmp_path / 'other', False, 1, load_from=str(path))
    loaded.load_or_resume()
    saved = torch.load(path, weights_only=False)
    assert digits.equal(digits.weights(loaded), dict(saved['state_dict']))
    assert not digits.equal(digits.weights(loaded), digits.weights(averaged))


def test_averaging_begins_in_a_resumed_run(digits, run, tmp_path):
    """The average begins with the trained weights."""
    options = dict(resume=True, load_from=str(run / 'epoch_1.pth'))
    cfg = digits.tiny_config(tmp_path, 2, **options)
    cfg.custom_hooks.append(dict(type='EMAHook', momentum=0.2))
    runner = digits.start(cfg)
    hook = next(x for x in runner.hooks if isinstance(x, EMAHook))
    seen = []

    def look(runner):
        average = hook.ema_model.module.state_dict().items()
        seen.append(digits.weights(runner))
        seen.append({key: value.clone() for key, value in average})

    watch = Hook()
    watch.before_train_epoch = look
    runner.register_hook(watch)
    runner.train()
    saved = torch.load(run / 'epoch_1.pth', weights_only=False)['state_dict']
    assert all(digits.equal(found, dict(saved)) for found in seen)
    assert len(seen) == 2
