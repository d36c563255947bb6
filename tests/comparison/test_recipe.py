"""What must not change between a comparison's run and its resumption."""

import sys
from pathlib import Path

import pytest

from fgc_mm.cli.commands import compare
from fgc_mm.comparison import plan
from fgc_mm.comparison.entry import Entry
from fgc_mm.comparison.run import Method, Run
from fgc_mm.errors import FGCError

ROOT = Path(__file__).resolve().parents[2]


def test_runs_from_before_the_groups_were_joined_go_on():
    recipe = dict(
        optim_wrapper=dict(
            constructor='fgc_mm.JoinedGroupsConstructor', optimizer=dict(lr=1)
        )
    )
    plan._leave_out_constructor(recipe)
    assert recipe == dict(optim_wrapper=dict(optimizer=dict(lr=1)))
    other = dict(optim_wrapper=dict(constructor='Layers'))
    plan._leave_out_constructor(other)
    assert other == dict(optim_wrapper=dict(constructor='Layers'))
    plan._leave_out_constructor(dict(optim_wrapper=None))


def run(folder, start=None, **recipe):
    method = Method('a', Path('a.py'), 1, False, (), recipe, 'data')
    return Run(method, 0, folder / 'a', start)


@pytest.mark.parametrize('more', [{'budget': 0.45}, {'importance': 'fpgm'}])
def test_a_run_without_a_planned_ratio_is_not_one_with(tmp_path, more):
    run(tmp_path, epochs=1).write_recipe()
    run(tmp_path, epochs=1, lately_noted=3).write_recipe()  # older runs go on
    with pytest.raises(FGCError, match='begun with other settings'):
        run(tmp_path, epochs=1, **more).write_recipe()


def test_a_run_from_scratch_is_not_one_from_a_start(tmp_path):
    run(tmp_path, epochs=1).write_recipe()
    start = run(tmp_path / 'start', epochs=5)
    with pytest.raises(FGCError, match='start was None'):
        run(tmp_path, start, epochs=1).write_recipe()


def test_nothing_is_noted_where_a_run_is_refused(tmp_path):
    """Or the right command would be refused the time after."""
    config = str(ROOT / 'configs' / 'dense_resnet20_digits.py')
    rows = [Entry(config, name=name) for name in 'ab']
    plan.plan(rows[1:], plan.Settings([0], tmp_path, epochs=2))
    with pytest.raises(FGCError, match='runs/b/seed0 was begun with'):
        plan.plan(rows, plan.Settings([0], tmp_path, epochs=3))
    plan.plan(rows, plan.Settings([0], tmp_path, epochs=2))


def test_a_row_keeps_its_own_ratio_at_equal_macs(tmp_path):
    settings = plan.Settings([0], tmp_path, match_macs=True)
    config = str(ROOT / 'configs' / 'fgc_resnet20_digits_55.py')
    losses = plan.read_method(Entry(config), settings).recipe['model']
    (place,) = (
        number
        for number, loss in enumerate(losses['gate_losses'])
        if 'MACs' in loss['type']
    )
    own = (f'model.gate_losses.{place}.pruning_ratio=0.3',)
    method = plan.read_method(Entry(config, options=own), settings)
    loss = method.recipe['model']['gate_losses'][place]
    assert loss['pruning_ratio'] == 0.3
    assert method.options == own


def test_a_pruning_ratio_of_0_is_refused(tmp_path, monkeypatch):
    arguments = ['a.py', '--pruning-ratio', '0', '--work-dir', str(tmp_path)]
    monkeypatch.setattr(sys, 'argv', ['compare.py', *arguments])
    with pytest.raises(
        FGCError, match=r'--pruning-ratio 0\.0 is not a fraction'
    ):
        compare.main()
