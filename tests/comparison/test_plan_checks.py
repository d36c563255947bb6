"""What a plan refuses before anything is trained."""

import os
from argparse import Namespace

import pytest
from mmengine.config import Config

from fgc_mm.cli.commands import compare
from fgc_mm.comparison.entry import Entry
from fgc_mm.comparison.plan import check_data, plan
from fgc_mm.comparison.study import Study
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
