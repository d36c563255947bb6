"""Plan files: their settings, those of the project, and bad ones."""

from dataclasses import replace
from pathlib import Path

import pytest

from fgc_mm.comparison.entry import Start
from fgc_mm.comparison.plan import plan
from fgc_mm.comparison.plan_file import read_study
from fgc_mm.engine.config_file import load_config
from fgc_mm.engine.config_options import override, read_options
from fgc_mm.errors import FGCError

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
STUDIES = sorted((CONFIGS / 'studies').glob('*.yaml'))
TEXT = """
title: Two of them
seeds: [3, 4]
epochs: 2
options: {train_dataloader.batch_size: 8}
pretrain: ../dense.py
pretrain_epochs: 5
pruning_ratio: 0.4
methods:
  - a.py
  - name: b
    label: B (7)
    config: a.py
    options: {x.y: 1e-7, z: [1, 2], u: 2.5e4}
    seeds: [7]
  - {config: 'fpgm:../dense.py', pretrain_epochs: 6}
  - {name: scratch, config: a.py, pretrain: null}
questions:
  - {ask: 'Which?', row: b, against: a}
axis: {label: K, series: {one: {a: 5, b: 7}, other: {scratch: 9}}}
"""


def write(folder, text):
    file = folder / 'plan.yaml'
    file.write_text(text)
    return file


def test_the_settings_of_a_plan(tmp_path):
    study = read_study(write(tmp_path, TEXT))
    first, second, third, fourth = study.entries
    assert study.title == 'Two of them'
    assert (study.seeds, study.epochs) == ((3, 4), 2)
    assert study.options == ('train_dataloader.batch_size=8',)
    assert (study.pruning_ratio, study.match_macs) == (0.4, False)
    assert first.config == str(tmp_path / 'a.py') and first.row == 'a'
    start = Start(f'{tmp_path}/../dense.py', 5)
    assert first.start == start and first.seeds is None
    assert second.row == 'b' and second.seeds == (7,)
    assert (first.label, second.label) == (None, 'B (7)')
    assert second.options == ('x.y=1e-7', 'z=[1,2]', 'u=2.5e4')
    options = read_options(second.options)
    assert options == {'x.y': 1e-7, 'z': [1, 2], 'u': 2.5e4}
    assert (third.importance, third.row) == ('fpgm', 'fpgm_dense')
    assert third.start.epochs == 6
    assert fourth.start is None
    (question,) = study.questions
    assert (question.text, question.row) == ('Which?', 'b')
    assert study.axis.label == 'K'
    assert study.axis.series == {
        'one': {'a': 5, 'b': 7},
        'other': {'scratch': 9},
    }


@pytest.mark.parametrize('file', STUDIES, ids=lambda file: file.stem)
def test_our_plans_change_what_they_name(file):
    """Every config is there, and every option meets a key of its config."""
    study = read_study(file)
    assert study.entries and len({e.row for e in study.entries}) == len(
        study.entries
    )
    seen = set()
    for entry in study.entries:
        cfg = load_config(entry.config)
        before = cfg.to_dict()['model']
        override(cfg, read_options(entry.options))
        after = cfg.to_dict()['model']
        if entry.options:  # or they are in place of those for equal MACs
            assert before != after or study.match_macs
        else:
            assert before == after
        others = cfg.get('load_from'), cfg.param_scheduler
        text = repr(after), repr(others)
        assert text not in seen or entry.importance
        seen.add(text)
        if entry.start is not None:
            load_config(entry.start.config)


@pytest.mark.parametrize(
    ('text', 'said'),
    [
        ('methods: [', 'is not YAML'),
        ('- a.py', 'which is not a mapping'),
        ('method: [a.py]', "has the key 'method', which nothing reads"),
        ('methods: a', 'is not a list of configs'),
        ('methods: []', 'is not a list of configs'),
        ('seeds: [1]', 'is not a list of configs'),
        ('methods: [3]', 'which is not a mapping'),
        ('methods: [{name: a}]', 'config=None, which is not a path'),
        ('methods: [best:a.py]', "'best', which is unknown"),
        ('methods: [a.py]\nseeds: 3', 'not a list of whole numbers'),
        ('methods: [a.py]\nseeds: [true]', 'not a list of whole numbers'),
        ('methods: [a.py]\nepochs: many', 'not a whole number'),
        ('methods: [a.py]\naxis: {series: [a]}', 'needs lines of rows'),
        (
            'methods: [a.py]\naxis: {series: {x: [c]}}',
            "'c', which is not a row",
        ),
        ('methods: [a.py]\naxis: {series: {x: {a: b}}}', 'give a number'),
        ('methods: [a.py]\nseeds: []', 'not a list of whole numbers'),
        ('methods: [a.py]\nepochs: 0', 'give at least 1'),
        ('methods: [{config: a.py, pretrain_epochs: 0}]', 'give at least 1'),
        ('methods: [a.py]\nmatch_macs: "no"', 'not true or false'),
        ('methods: [a.py]\nquestions: 5', 'is not a list'),
        ('methods: [a.py]\npublished_dataset: [x]', 'is not text'),
        ('methods: [{config: a.py, name: 5}]', 'is not text'),
        ('methods: [{config: a.py, name: ../b}]', 'cannot be the name'),
        ('methods: [{config: a.py, name: ..}]', 'cannot be the name'),
        ('methods: [{config: a.py, pretrain: 5}]', 'is not text'),
        ('methods: [a.py]\naxis: {series: {x: [[a]]}}', 'needs lines of rows'),
        ('methods: [a.py]\naxis: {series: {x: {a: .nan}}}', 'give a number'),
        ('methods: [a.py]\naxis: {label: K, series: {x: [a]}}', 'neither'),
        ('methods: [a.py]\naxis: {series: {x: {a: 5}}}', 'neither'),
        ('methods: [a.py]\noptions: [a=1]', 'which is not a mapping'),
        ('methods: [a.py]\noptions: {a: {b: 1}}', 'cannot express'),
        ('methods: [a.py]\noptions: {a: "x, y"}', "read as ['x', 'y']; "),
        (
            'methods: [a.py]\noptions: {a: "007"}',
            "a to '007', which --cfg-options read as 7;",
        ),
        ('methods: [a.py]\noptions: {a: [b c, "0"]}', 'write a config'),
        (
            'methods: [a.py]\nquestions: [{row: a, against: c}]',
            "against='c', which is not a row; choose among a.",
        ),
    ],
)
def test_a_bad_plan_is_one_sentence(tmp_path, text, said):
    with pytest.raises(FGCError) as caught:
        read_study(write(tmp_path, text))
    assert said in str(caught.value)
    assert '\n' not in str(caught.value)


def test_every_row_has_its_own_start_and_seeds(tmp_path):
    base = CONFIGS / 'dense_resnet20_digits.py'
    for name in ('dense', 'other'):
        (tmp_path / f'{name}.py').write_text(f'_base_ = [{str(base)!r}]')
    study = read_study(
        write(
            tmp_path,
            """
            epochs: 2
            methods:
              - {name: a, config: dense.py, pretrain: dense.py}
              - {name: b, config: other.py, pretrain: dense.py, seeds: [1]}
              - {name: c, config: dense.py, pretrain: dense.py,
                 pretrain_epochs: 3}
              - {name: d, config: other.py, epochs: 4}
            """,
        )
    )
    runs = plan(replace(study, seeds=(0, 1)), tmp_path / 'out')
    starts = [run.name for run in runs if run.name.startswith('start')]
    assert starts == [
        'start_dense seed 0', 'start_dense seed 1',
        'start_dense_3e seed 0', 'start_dense_3e seed 1',
    ]  # fmt: skip
    epochs = {run.method.name: run.method.epochs for run in runs}
    assert (epochs['a'], epochs['d'], epochs['start_dense_3e']) == (2, 4, 3)
    rest = {run.name: run.start and run.start.name for run in runs[4:]}
    assert rest == {
        'a seed 0': 'start_dense seed 0',
        'c seed 0': 'start_dense_3e seed 0',
        'd seed 0': None,
        'a seed 1': 'start_dense seed 1',
        'b seed 1': 'start_dense seed 1',
        'c seed 1': 'start_dense_3e seed 1',
        'd seed 1': None,
    }


@pytest.fixture
def configs(tmp_path):
    """A dense config, and one with a distillation."""
    base = str(CONFIGS / 'dense_resnet20_digits.py')
    (tmp_path / 'dense.py').write_text(f'_base_ = [{base!r}]')
    (tmp_path / 'student.py').write_text(
        f'_base_ = [{str(CONFIGS / "bas_resnet20_digits.py")!r}]\n'
        'model = dict(distillation=dict(temperature=2.0))'
    )
    others = {
        'bas': (CONFIGS / 'bas_resnet20_digits.py', ''),
        'wide': (base, 'model = dict(backbone=dict(base_channels=32))'),
        'grey': (base, 'data_preprocessor = dict(mean=[0.0] * 3)'),
    }
    for name, (config, text) in others.items():
        (tmp_path / f'{name}.py').write_text(
            f'_base_ = [{str(config)!r}]\n{text}'
        )
    return tmp_path


def test_a_row_of_the_same_recipe_is_the_start(configs):
    text = """
        epochs: 2
        methods:
          - {name: a, config: dense.py, pretrain: dense.py}
          - {name: b, config: dense.py, pretrain: dense.py, pretrain_epochs: 3}
          - {name: dense, config: dense.py, seeds: [1]}
        """
    study = replace(read_study(write(configs, text)), seeds=(0, 1))
    runs = plan(study, configs / 'out')
    assert {run.name: run.start and run.start.name for run in runs} == {
        'start_dense seed 0': None,
        'dense seed 1': None,
        'start_dense_3e seed 0': None,
        'start_dense_3e seed 1': None,
        'a seed 0': 'start_dense seed 0',
        'a seed 1': 'dense seed 1',
        'b seed 0': 'start_dense_3e seed 0',
        'b seed 1': 'start_dense_3e seed 1',
    }
    assert [run.name for run in runs].index('dense seed 1') < 4


@pytest.mark.parametrize(
    'options',
    [
        'train_dataloader.num_batch_per_epoch: 1',
        'train_dataloader.dataset.data_root: /',
    ],
)
def test_a_row_with_options_is_no_start(configs, options):
    text = f"""
        epochs: 2
        methods:
          - {{name: short, config: dense.py, options: {{{options}}}}}
          - {{name: x, config: dense.py, pretrain: dense.py}}
        """
    study = replace(read_study(write(configs, text)), seeds=(0,))
    names = [run.name for run in plan(study, configs / 'out')]
    assert names == ['start_dense seed 0', 'short seed 0', 'x seed 0']


def test_starts_of_one_stem_have_names_of_their_own(configs):
    for folder in ('a', 'b'):
        (configs / folder).mkdir()
        text = (configs / 'dense.py').read_text()
        (configs / folder / 'dense.py').write_text(text)
    text = """
        epochs: 2
        methods:
          - {name: x, config: dense.py, pretrain: dense.py}
          - {name: y, config: dense.py, pretrain: a/dense.py}
          - {name: z, config: dense.py, pretrain: b/dense.py}
          - {name: w, config: dense.py, pretrain: b/dense.py,
             pretrain_epochs: 2}
        """
    study = replace(read_study(write(configs, text)), seeds=(0,))
    runs = plan(study, configs / 'out')
    assert [run.method.name for run in runs] == [
        'start_dense', 'start_dense_2e', 'start_dense_2', 'x', 'y', 'z', 'w',
    ]  # fmt: skip
    assert all(run.start in runs[:3] for run in runs[3:])
    assert runs[-1].start is runs[-2].start


def test_a_teacher_is_not_loaded(configs):
    text = """
        epochs: 2
        methods:
          - {config: student.py, teacher: dense.py, teacher_epochs: 3}
          - {name: from_dense, config: student.py, pretrain: dense.py}
        """
    study = replace(read_study(write(configs, text)), seeds=(4,))
    runs = {run.method.name: run for run in plan(study, configs / 'out')}
    assert [*runs] == [
        'start_dense', 'start_dense_2e', 'student', 'from_dense',
    ]  # fmt: skip
    weights = str(runs['start_dense'].last_checkpoint)
    command = runs['student'].next_step()[1]
    assert f'model.distillation.checkpoint={weights}' in command
    assert not any(word.startswith('load_from') for word in command)
    command = runs['from_dense'].next_step()[1]
    weights = str(runs['start_dense_2e'].last_checkpoint)
    assert f'load_from={weights}' in command
    assert f'model.distillation.checkpoint={weights}' in command
    changed = replace(study, entries=(replace(
        study.entries[0], loads_start=True),))  # fmt: skip
    with pytest.raises(FGCError, match='was begun with other settings'):
        plan(changed, configs / 'out')


@pytest.mark.parametrize(
    ('row', 'said'),
    [
        ('config: dense.py, teacher: dense.py', 'has no model.distillation'),
        ('config: student.py, teacher: dense.py, pretrain: dense.py',
         'has pretrain and teacher'),
        ("config: 'fpgm:dense.py', teacher: dense.py", 'nothing to prune'),
        ('config: student.py', 'has a distillation without a checkpoint'),
        ('config: student.py, teacher: student.py', 'distillation without'),
        ('config: student.py, teacher: bas.py', 'which has gates'),
        ('config: student.py, teacher: wide.py', 'base_channels'),
        ('config: student.py, teacher: grey.py', 'data_preprocessors'),
        ('config: dense.py, teacher_epochs: 3', 'without teacher'),
    ],
)  # fmt: skip
def test_a_teacher_that_is_of_no_use(configs, row, said):
    text = f'epochs: 2\nmethods: [{{name: a, {row}}}]'
    with pytest.raises(FGCError, match=said):
        plan(read_study(write(configs, text)), configs / 'out')


def test_epochs_of_no_start_are_refused(configs):
    for text in (
        'pretrain_epochs: 3\nmethods: [dense.py, bas.py]',
        'methods: [{config: bas.py, pretrain_epochs: 3}]',
        'pretrain: dense.py\n'
        'methods: [{config: bas.py, pretrain: null, pretrain_epochs: 3}]',
    ):
        with pytest.raises(FGCError, match='pretrain_epochs without pretrain'):
            read_study(write(configs, text))
    # one row starts from a network, the other from scratch
    study = read_study(write(configs, (
        'pretrain: dense.py\npretrain_epochs: 3\n'
        'methods: [{config: bas.py, pretrain: null}, bas.py]'
    )))  # fmt: skip
    assert [entry.pretrains for entry in study.entries] == [False, True]


def test_a_wrapped_data_set_that_is_missing_is_refused(tmp_path, monkeypatch):
    """The folder is that of the data set within InMemoryImages."""
    monkeypatch.chdir(tmp_path)
    study = read_study(CONFIGS / 'studies' / 'cifar10_jpeg16.yaml')
    with pytest.raises(FGCError) as caught:
        plan(replace(study, epochs=2), tmp_path / 'out')
    text = str(caught.value)
    assert text.startswith('data/folder/train, the data set of ')
    assert 'train_dataloader.dataset.dataset.data_root=...' in text
    assert not (tmp_path / 'out').exists()
