"""What must not change between a comparison's run and its resumption."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from mmengine.config import Config

from fgc_mm.cli.commands import compare
from fgc_mm.cli.dispatch import parse
from fgc_mm.comparison import plan, stored_results
from fgc_mm.comparison.entry import Entry
from fgc_mm.comparison.plan_file import read_study
from fgc_mm.comparison.results import by_epoch
from fgc_mm.comparison.run import Method, Run
from fgc_mm.comparison.stored_results import find_stored_result as find
from fgc_mm.comparison.study import Study
from fgc_mm.engine.config_file import load_config
from fgc_mm.errors import FGCError

ROOT = Path(__file__).resolve().parents[2]


def test_runs_from_before_the_groups_were_joined_are_resumed():
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
    run(
        tmp_path, epochs=1, lately_noted=3
    ).write_recipe()  # older runs are resumed
    with pytest.raises(FGCError, match='begun with other settings'):
        run(tmp_path, epochs=1, **more).write_recipe()


def test_a_run_from_scratch_is_not_one_from_a_start(tmp_path):
    run(tmp_path, epochs=1).write_recipe()
    start = run(tmp_path / 'start', epochs=5)
    with pytest.raises(FGCError, match='start was None'):
        run(tmp_path, start, epochs=1).write_recipe()


def store(run, folder, **changes):
    result = dict.fromkeys(stored_results.NEEDED, 1)
    result.update(method=run.method.name, seed=run.seed)
    result.update(recipe=run.full_recipe(), **changes)
    stored_results.store_result(run, result, folder)
    return result


def take(folder, *runs):
    """Names of the runs whose stored results are taken."""
    compare.Comparison([*runs], folder, [], 1, folder, Study('x', ()))
    return [run.folder.parent.name for run in runs if run.state == 'done']


def test_a_start_is_trained_again_only_for_runs_that_need_it(tmp_path):
    start = run(tmp_path / 'start', epochs=5)
    later = run(tmp_path / 'later', start, epochs=1)
    other = run(tmp_path / 'other', start, epochs=2)
    # one name would be one file
    names = {'start': start, 'later': later, 'other': other}
    for name, each in names.items():
        each.method = replace(each.method, name=name)
    runs = names.values()
    store(start, tmp_path)
    assert take(tmp_path, *runs) == []
    store(later, tmp_path)
    assert take(tmp_path, *runs) == ['later']
    store(other, tmp_path)
    assert take(tmp_path, *runs) == ['start', 'later', 'other']


def test_a_stored_result_of_an_older_version_is_not_taken(tmp_path):
    one = run(tmp_path, epochs=1)
    store(one, tmp_path)
    assert find(one, tmp_path)['method'] == 'a'
    one.method = replace(one.method, sweeps=True)
    assert find(one, tmp_path) is None
    store(one, tmp_path, threshold_sweep=[])
    assert find(one, tmp_path) is not None
    file = stored_results.result_file(one, tmp_path)
    result = json.loads(file.read_text())
    file.write_text(json.dumps({**result, 'recipe': {'epochs': 2, 'seed': 0}}))
    with pytest.raises(FGCError, match='epochs was 2 and is 1'):
        find(one, tmp_path)
    del result['recipe']
    file.write_text(json.dumps(result))
    assert find(one, tmp_path) is None
    for change, text in (
        ({'epochs': 9}, 'epochs was 9 and is 1'),  # it would be replaced
        ({'recipe': {}}, 'its recipe is none'),
        ({'recipe': [1]}, 'its recipe is none'),
        ({'seed': 4}, 'it is that of'),
    ):
        file.write_text(json.dumps({**result, **change}))
        with pytest.raises(FGCError, match=text):
            find(one, tmp_path)


def test_a_stored_result_of_other_settings_is_refused_before_any_file(
    tmp_path,
):
    config = str(ROOT / 'configs' / 'sfp_resnet20_digits.py')
    study = Study('x', (Entry(config),), (0,), 2)
    kept = tmp_path / 'kept'
    (one,) = plan.plan(study, tmp_path / 'a', kept)
    store(one, kept, epochs=2)
    plan.plan(study, tmp_path / 'b', kept)
    for option in (
        'custom_hooks.0.pruning_rate=0.2',
        'data_preprocessor.mean=[0,0,0]',
        'test_dataloader.dataset.indices=10',
    ):
        other = replace(study, options=(option,))
        with pytest.raises(FGCError, match='with other settings'):
            plan.plan(other, tmp_path / 'c', kept)
    assert not (tmp_path / 'c').exists()


def test_where_the_images_are_is_no_part_of_a_recipe(tmp_path):
    inner = dict(data_root='here', dataset=dict(data_root='here', type='x'))
    run(tmp_path, images=inner).write_recipe()
    run(tmp_path, images=dict(dataset=dict(type='x'))).check_recipe()
    with pytest.raises(FGCError, match=r'images\.dataset\.type was'):
        run(tmp_path, images=dict(dataset=dict(type='y'))).check_recipe()
    loader = dict(dataset=inner)
    cfg = Config(dict(train_dataloader=loader))
    assert plan._images(cfg.train_dataloader) == dict(dataset=dict(type='x'))


def test_an_epoch_that_was_interrupted_at_its_end_is_kept(tmp_path):
    """Its training was logged before, its validation after the resume."""
    for name, lines in (
        ('1', [{'epoch': 1, 'loss': 2.0}, {'step': 1, 'accuracy/top1': 10}]),
        ('2', [{'step': 2, 'accuracy/top1': 37.5}]),
    ):
        file = tmp_path / name / 'vis_data' / 'scalars.json'
        file.parent.mkdir(parents=True)
        file.write_text('\n'.join(map(json.dumps, lines)))
    assert by_epoch(tmp_path) == [
        {'epoch': 1, 'loss': 2.0, 'accuracy/top1': 10},
        {'epoch': 2, 'accuracy/top1': 37.5},
    ]


def test_a_refused_run_stores_nothing(tmp_path):
    """Or the right command would be refused the time after."""
    config = str(ROOT / 'configs' / 'dense_resnet20_digits.py')
    rows = tuple(Entry(config, name=name) for name in 'ab')
    plan.plan(Study('x', rows[1:], (0,), 2), tmp_path)
    with pytest.raises(FGCError, match='runs/b/seed0 was begun with'):
        plan.plan(Study('x', rows, (0,), 3), tmp_path)
    plan.plan(Study('x', rows, (0,), 2), tmp_path)


def test_a_row_keeps_its_own_ratio_at_equal_macs():
    study = Study('x', (), match_macs=True)
    config = str(ROOT / 'configs' / 'fgc_resnet20_digits_55.py')
    losses = plan.read_method(Entry(config), study).recipe['model']
    (place,) = (
        number
        for number, loss in enumerate(losses['gate_losses'])
        if 'MACs' in loss['type']
    )
    own = (f'model.gate_losses.{place}.pruning_ratio=0.3',)
    method = plan.read_method(Entry(config, options=own), study)
    loss = method.recipe['model']['gate_losses'][place]
    assert loss['pruning_ratio'] == 0.3
    assert method.options == own


def test_a_pruning_ratio_of_0_is_refused(tmp_path, monkeypatch):
    name = 'fgc_resnet20_digits'
    arguments = [name, '--pruning-ratio', '0', '--work-dir', str(tmp_path)]
    monkeypatch.setattr(sys, 'argv', ['compare.py', *arguments])
    with pytest.raises(
        FGCError, match=r'--pruning-ratio 0\.0 is not a fraction'
    ):
        compare.main(parse('compare'))


class BusyForSomePolls:
    free = False
    polls = 0

    @property
    def busy(self):
        return self.polls < 3

    def poll(self):
        self.polls += 1
        return []


def test_a_restart_draws_the_report_once(tmp_path, monkeypatch):
    runs = [run(tmp_path / str(seed), epochs=1) for seed in range(3)]
    for seed, one in enumerate(runs):
        one.seed, one.state = seed, 'done'
    comparison = compare.Comparison(
        runs, tmp_path, [], 1, None, Study('x', ())
    )
    found = {'error': 1.0, 'macs/pruning_ratio': 0.0}
    comparison.results = {one.name: found for one in runs}
    written = []
    monkeypatch.setattr(compare, 'write_report', lambda *x: written.append(x))
    comparison.run(BusyForSomePolls())
    assert len(written) == 1


@pytest.mark.parametrize('loads_start', [True, False])
def test_recipes_of_older_versions_lack_keys(tmp_path, loads_start):
    """Also those of the runs from which others start."""
    old = run(tmp_path, run(tmp_path / 'start', epochs=5), epochs=1)
    new = run(
        tmp_path, run(tmp_path / 'start', epochs=5, later=1), epochs=1, later=2
    )
    for one in (old, new):
        one.method = replace(one.method, loads_start=loads_start)
    old.write_recipe()
    new.check_recipe()
    other = run(tmp_path, run(tmp_path / 'start', epochs=6), epochs=1)
    other.method = replace(other.method, loads_start=loads_start)
    with pytest.raises(FGCError, match='epochs was 5 and is 6'):
        other.check_recipe()


def test_all_stored_results_are_of_recipes_that_are_read():
    files = sorted((ROOT / 'results').glob('*/*/seed*.json'))
    assert files
    for file in files:
        stored = json.loads(file.read_text())['recipe']
        roles = {'start', 'teacher'} & stored.keys()
        start = next((stored[x] for x in roles if stored[x]), None)
        recipe = {k: v for k, v in stored.items() if k not in roles}
        one = run(
            Path('x'),
            start and run(Path('y'), **{**start, 'later': 1}),
            **{**recipe, 'later': 2},
        )
        teacher = bool(stored.get('teacher'))
        one.method = replace(one.method, loads_start=not teacher)
        one.seed = stored['seed']
        assert one.recipe_change(stored) is None, file


def test_the_rows_of_all_studies_measure_what_they_show():
    """Their data sets may be missing here."""
    for file in sorted((ROOT / 'configs' / 'studies').glob('*.yaml')):
        for entry in read_study(file).entries:
            plan.check_macs(load_config(entry.config), entry.config)
