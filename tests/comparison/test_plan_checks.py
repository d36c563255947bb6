"""What a plan refuses before anything is trained."""

import os
from argparse import Namespace

import pytest
from mmengine.config import Config

from fgc_mm.cli.commands import compare
from fgc_mm.comparison.entry import Entry, Start
from fgc_mm.comparison.last_checkpoint_check import check_last_checkpoint
from fgc_mm.comparison.local_executor import visible_devices
from fgc_mm.comparison.plan import check_data, plan
from fgc_mm.comparison.study import Study
from fgc_mm.config_files import config_file
from fgc_mm.errors import FGCError

ACCURACY = "dict(_delete_=True, type='Accuracy')"
MACS = "type='fgc_mm.DynamicMACs'"


def write(folder, base, evaluator):
    file = folder / 'own.py'
    file.write_text(
        f"_base_ = [__import__('fgc_mm').config_file('{base}')]\n"
        f'test_evaluator = {evaluator}\n'
    )
    return Study('x', (Entry(str(file)),), (0,), 1)


@pytest.mark.parametrize(
    'evaluator',
    [ACCURACY, f'[{ACCURACY}]', f"[{ACCURACY}, dict({MACS}, prefix='x')]"],
)
@pytest.mark.parametrize('base', ['bas', 'fgc'])
def test_gates_without_a_count_of_macs_are_refused(tmp_path, base, evaluator):
    """They would be a dense network in the table."""
    study = write(tmp_path, f'{base}_resnet20_digits.py', evaluator)
    with pytest.raises(FGCError, match='gates, but no DynamicMACs'):
        plan(study, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    ('base', 'evaluator'),
    [
        ('dense', ACCURACY),
        ('fgc', f'[{ACCURACY}, dict({MACS})]'),
        ('fgc', f'dict(_delete_=True, metrics=[{ACCURACY}, dict({MACS})])'),
    ],
)
def test_others_are_planned(tmp_path, base, evaluator):
    study = write(tmp_path, f'{base}_resnet20_digits.py', evaluator)
    assert len(plan(study, tmp_path / 'out')) == 1


def test_a_data_set_that_downloads_may_have_its_scope():
    cfg = Config(dict(
        train_dataloader=dict(dataset=dict(type='', data_root='no folder')),
        test_dataloader=dict(dataset=dict(type='CIFAR10')),
    ))  # fmt: skip
    cfg.train_dataloader.dataset.type = 'mmpretrain.CIFAR10'
    check_data(cfg, 'a.py')
    cfg.train_dataloader.dataset.type = 'mmpretrain.CustomDataset'
    with pytest.raises(FGCError, match='no folder, the data set of a'):
        check_data(cfg, 'a.py')


def test_threads_are_of_the_cores_that_may_be_used(monkeypatch):
    monkeypatch.setattr(
        os, 'sched_getaffinity', lambda _: {3, 4, 5, 6}, raising=False
    )
    monkeypatch.setattr(compare, 'visible_devices', list)
    args = Namespace(launcher='', jobs=2, threads=None)
    assert compare.local_workers(args)[1] == 2


@pytest.mark.parametrize(
    'devices, count, found',
    [
        ('0,1', 2, ['0', '1']),
        ('0,-1,1', 1, ['0']),
        (' 2, 3 ,', 2, ['2', '3']),
        (None, 2, ['0', '1']),
    ],
)
def test_devices_are_those_that_cuda_uses(monkeypatch, devices, count, found):
    monkeypatch.setattr('torch.cuda.is_available', lambda: True)
    monkeypatch.setattr('torch.cuda.device_count', lambda: count)
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
    if devices is not None:
        monkeypatch.setenv('CUDA_VISIBLE_DEVICES', devices)
    assert visible_devices() == found


def test_a_launcher_with_an_open_quote_is_refused():
    args = Namespace(launcher='srun -p "x', jobs=2, threads=None)
    with pytest.raises(FGCError, match='close every quote'):
        compare.local_workers(args)


@pytest.mark.parametrize('seed', [-1, 2**32])
def test_seeds_are_those_of_numpy(tmp_path, seed):
    study = Study('x', (Entry('dense_resnet20_digits.py'),), (seed,), 1)
    with pytest.raises(FGCError, match=f'seed {seed} is out of range'):
        plan(study, tmp_path)


def test_the_dense_row_is_the_start_however_it_is_written(tmp_path):
    dense = 'dense_resnet20_digits'
    start = Start(str(config_file(f'{dense}.py')), None)
    entries = (
        Entry(f'{dense}.py'),
        Entry('bas_resnet20_digits.py', start=start),
    )
    runs = plan(Study('x', entries, (0,), 2), tmp_path)
    assert [run.method.name for run in runs] == [dense, 'bas_resnet20_digits']


@pytest.mark.parametrize(
    'option',
    [
        'train_dataloader.drop_last=False',
        'train_dataloader.sampler.shuffle=False',
        'auto_scale_lr.enable=True',
        'test_evaluator.0.topk=5',
    ],
)
def test_what_changes_a_training_is_in_its_recipe(tmp_path, option):
    entries = (Entry('dense_resnet20_digits.py'),)
    plan(Study('x', entries, (0,), 2), tmp_path)
    plan(Study('x', entries, (0,), 2), tmp_path)  # the same again
    with pytest.raises(FGCError, match='begun with other settings'):
        plan(Study('x', entries, (0,), 2, options=(option,)), tmp_path)


def test_options_of_a_pruned_run_are_not_scaled(tmp_path):
    start = Start('dense_resnet20_digits.py', None)
    options = ('param_scheduler.milestones=[4,8]', 'model.head.topk=[1,2]')
    entry = Entry('dense_resnet20_digits.py', importance='fpgm', start=start)
    study = Study('x', (entry,), (0,), 10, options=options)
    *_, run = plan(study, tmp_path)
    command = run._train()
    assert '--epochs' in command and options[0] in command
    assert options[1] not in command  # the pruned config has it


def test_numbers_of_an_earlier_training_are_removed(tmp_path):
    study = Study('x', (Entry('dense_resnet20_digits.py'),), (0,), 2)
    (run,) = plan(study, tmp_path)
    run.metrics.write_text('{}')
    assert run.next_step()[0] == 'training' and not run.metrics.exists()


@pytest.mark.parametrize(
    ('line', 'told'),
    [
        ("custom_hooks = [dict(type='EarlyStoppingHook', monitor='x')]",
         'has an EarlyStoppingHook, but'),
        ("custom_hooks = [dict(type='mmengine.EarlyStoppingHook')]",
         'has an EarlyStoppingHook, but'),
        ('default_hooks = dict(checkpoint=dict(by_epoch=False))',
         'by_epoch=False of default_hooks.checkpoint, .* set it to True'),
        ("default_hooks = dict(checkpoint=dict(out_dir='elsewhere'))",
         "out_dir='elsewhere' of"),
        ("default_hooks = dict(checkpoint=dict(filename_tmpl='{}.pth'))",
         'filename_tmpl='),
    ],
)  # fmt: skip
def test_a_training_without_the_last_checkpoint_is_refused(
    tmp_path, line, told
):
    study = write(tmp_path, 'dense_resnet20_digits.py', ACCURACY)
    with (tmp_path / 'own.py').open('a') as file:
        file.write(f'{line}\n')
    with pytest.raises(FGCError, match=told):
        plan(study, tmp_path / 'out')


def test_only_a_schedule_of_its_own_may_skip_the_last_checkpoint():
    """``scale_epochs`` sets ``save_last`` anyway."""
    hooks = dict(checkpoint=dict(save_last=False))
    with pytest.raises(FGCError, match='save_last=False of'):
        check_last_checkpoint(Config(dict(default_hooks=hooks)), 'x.py')
