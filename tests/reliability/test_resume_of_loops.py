"""Exact resumes of other loops, inside one process."""

import os
import signal

import pytest
import torch
from mmengine.hooks import Hook

from fgc_mm.exit_status import STOPPED


class TellHook(Hook):
    """Sends a signal to its own process, once, at a given step."""

    priority = 'VERY_HIGH'

    def __init__(self, method, number):
        setattr(self, method, self.tell)
        self.number = number

    def tell(self, *_, **__):
        self.number -= 1
        if self.number == 0:
            os.kill(os.getpid(), signal.SIGTERM)


def everything(digits, runner):
    rows = digits.bank_rows(digits.coupling(runner))
    states = runner.optim_wrapper.optimizer.state.values()
    momentum = {
        f'momentum.{number}': state['momentum_buffer'].clone()
        for number, state in enumerate(states)
    }
    assert len(momentum) > 30
    return {**digits.weights(runner), **rows, **momentum}


def by_iterations(cfg):
    cfg.train_dataloader.sampler.type = 'InfiniteSampler'
    cfg.train_cfg = dict(by_epoch=False, max_iters=12, val_interval=4)
    cfg.param_scheduler = None
    cfg.default_hooks.checkpoint.by_epoch = False
    cfg.default_hooks.checkpoint.interval = 12
    return cfg


def by_epochs(cfg):
    return cfg


def averaged(cfg):
    cfg.custom_hooks.append(dict(type='EMAHook', momentum=0.2))
    return cfg


def averaged_and_not(cfg):
    average = dict(type='EMAHook', momentum=0.2, evaluate_on_origin=True)
    cfg.custom_hooks.append(average)
    return cfg


ACCUMULATED = {'optim_wrapper.accumulative_counts': 5}


@pytest.mark.parametrize(
    ('loop', 'method', 'number', 'options', 'steps'),
    [
        # in the second round of the data, before a validation that is lost
        (by_iterations, 'after_train_iter', 8, {'validate': True}, 8),
        (by_epochs, 'after_val_iter', 2, {'validate': True}, 5),
        # the model then has the averaged weights
        (averaged, 'after_val_iter', 2, {'validate': True}, 5),
        # validates both; stops in the next epoch
        (averaged_and_not, 'after_val_iter', 2, {'validate': True}, 6),
        (averaged_and_not, 'after_val_iter', 6, {'validate': True}, 6),
        # waits for the update, which is an epoch's last step here
        (by_epochs, 'after_train_iter', 7, ACCUMULATED, 10),
    ],
    ids=[
        'iterations',
        'validation',
        'average',
        'both, in the first',
        'both, in the second',
        'accumulation',
    ],
)
def test_stopped_by_a_signal_and_resumed(
    digits, tmp_path, loop, method, number, options, steps
):
    if 'validate' in options:
        options = {
            **options,
            'train_cfg.val_interval': 1,
            'val_dataloader.batch_size': 10,
            'val_dataloader.dataset.indices': 40,
        }

    def runner(folder, **more):
        cfg = digits.tiny_config(tmp_path / folder, 3, **options, **more)
        return digits.start(loop(cfg))

    whole = runner('whole')
    whole.train()
    stopped = runner('stopped')
    stopped.register_hook(TellHook(method, number))
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as error:
        stopped.train()
    assert error.value.code == STOPPED
    assert signal.getsignal(signal.SIGTERM) is before
    assert (tmp_path / 'stopped' / 'interrupted.pth').exists()
    resumed = runner('stopped', resume=True)
    starts = []
    hook = Hook()
    hook.before_train_iter = lambda runner, *_, **__: starts.append(
        runner.iter
    )
    resumed.register_hook(hook)
    resumed.train()
    assert starts[0] == steps
    one, other = (everything(digits, x) for x in (whole, resumed))
    assert digits.equal(one, other)


@pytest.mark.parametrize('counts', [2, 5])
def test_gradients_that_wait_at_the_end_of_an_epoch(
    digits, tmp_path, counts, capfd
):
    """5 steps an epoch: with 2 a sentence names what a resume loses."""
    options = {'optim_wrapper.accumulative_counts': counts}
    digits.start(digits.tiny_config(tmp_path, 1, **options)).train()
    said = 'accumulative_counts=2 does not divide the 5 steps'
    text = capfd.readouterr()
    assert (said in text.out + text.err) == (counts == 2)


@pytest.mark.parametrize(
    ('interval', 'begin', 'waits'),
    [(4, 0, False), (3, 0, True), (4, 1, True), (7, 0, False)],
)
def test_gradients_that_wait_at_the_end_of_an_interval(
    digits, tmp_path, capfd, interval, begin, waits
):
    """Of 6 steps; the last one updates the weights."""
    options = {
        'optim_wrapper.accumulative_counts': 2,
        'default_hooks.checkpoint.save_begin': begin,
    }
    cfg = by_iterations(digits.tiny_config(tmp_path, 1, **options))
    cfg.train_cfg.max_iters = 6
    cfg.default_hooks.checkpoint.interval = interval
    digits.start(cfg).train()
    said = f'accumulative_counts=2 does not divide the interval of {interval}'
    text = capfd.readouterr()
    assert (said in text.out + text.err) == waits


@pytest.mark.parametrize('interval', [1, 2])
def test_early_stopping_of_a_run_that_is_resumed(digits, tmp_path, interval):
    """The second epoch has the best accuracy; it waits for 3 epochs."""
    options = {
        'validate': True,
        'train_cfg.val_interval': 1,
        'val_dataloader.batch_size': 40,
        'val_dataloader.dataset.indices': 40,
    }

    def runner(folder, scores, monitor='accuracy/top1', **more):
        cfg = digits.tiny_config(tmp_path / folder, 9, **options, **more)
        cfg.default_hooks.checkpoint.interval = interval
        stopping = dict(type='EarlyStoppingHook', patience=3, rule='greater')
        cfg.custom_hooks.append(dict(stopping, monitor=monitor))
        made = digits.start(cfg)
        scores = iter(scores)

        def evaluate(size, metrics=made.val_evaluator.evaluate):
            return {**metrics(size), monitor: next(scores)}

        made.val_evaluator.evaluate = evaluate
        return made

    whole = runner('whole', [10.0, 50.0, 30.0, 31.0, 32.0])
    whole.train()
    assert whole.epoch == 5
    # save_last is not the last possible epoch, but the one it stopped after
    saved = sorted(path.name for path in (tmp_path / 'whole').glob('*.pth'))
    numbers = {*range(interval, 6, interval), 5}
    assert saved == [f'epoch_{number}.pth' for number in sorted(numbers)]
    last = torch.load(tmp_path / 'whole/epoch_5.pth', weights_only=False)
    assert digits.equal(digits.weights(whole), dict(last['state_dict']))
    assert (last['meta']['epoch'], last['meta']['iter']) == (5, 25)
    stopped = runner('stopped', [10.0, 50.0, 30.0])
    stopped.register_hook(TellHook('after_train_iter', 17))  # epoch 4
    with pytest.raises(SystemExit):
        stopped.train()
    resumed = runner('stopped', [31.0, 32.0], resume=True)
    resumed.train()
    one, other = (everything(digits, x) for x in (whole, resumed))
    assert resumed.epoch == 5 and digits.equal(one, other)
    # a repeated job has nothing to do
    again = runner('whole', [], resume=True)
    again.train()
    assert again.epoch == 5
    # the best value of another metric is not the best of this one
    ratios = [0.1, 0.2, 0.3, 0.4]
    anew = runner('whole', ratios, monitor='macs/keep_ratio', resume=True)
    anew.train()
    assert anew.epoch == 9
