"""Two methods, two seeds, a kill in between, and one that fails."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from fgc_mm.comparison.entry import Entry, Start
from fgc_mm.comparison.plan import plan
from fgc_mm.comparison.study import Study

ROOT = Path(__file__).resolve().parents[2]
COMPARE = ROOT / 'tools' / 'compare.py'
TINY = """
_base_ = ['{base}']
model = dict(backbone=dict({backbone}), head=dict(in_channels=16))
train_dataloader = dict(batch_size=8, dataset=dict(indices={images}))
val_dataloader = dict(dataset=dict(indices=60))
test_dataloader = val_dataloader
default_hooks = dict(logger=dict(interval=2))
"""
NARROW = 'base_channels=4'


def write_config(folder, name, base, backbone=NARROW, images=80, more=''):
    base = ROOT / 'configs' / f'{base}_resnet20_digits.py'
    text = TINY.format(base=base, backbone=backbone, images=images)
    (folder / f'{name}.py').write_text(text + more)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('a comparison')
    write_config(folder, 'dense_tiny', 'dense', images=800)
    gated = f'backbone=dict({NARROW})'
    write_config(folder, 'bas_tiny', 'bas', gated)
    more = "model['head'] = dict(in_channels=17)\n"
    write_config(folder, 'broken_tiny', 'dense', more=more)
    return folder


def command(*configs, seeds=(0, 1), options=()):
    return [
        sys.executable, '-W', 'ignore', str(COMPARE), *configs,
        '--seeds', *map(str, seeds), '--work-dir', 'out', '--epochs', '2',
        '--jobs', '2', '--threads', '1', *options,
    ]  # fmt: skip


def start(folder, *arguments, **options):
    return subprocess.Popen(
        command(*arguments, **options), cwd=folder, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
    )  # fmt: skip


def end(process):
    try:
        text, _ = process.communicate(timeout=600)
    finally:
        process.kill()
    assert 'Traceback' not in text, text
    return process.returncode, text


def wait_for(path, word):
    for _ in range(2400):
        if path.is_file() and word in path.read_text():
            return
        time.sleep(0.1)
    raise AssertionError(f'{path} has no {word}')


@pytest.fixture(scope='module')
def compared(folder):
    """Killed with -9 in the first epoch, and run again with a third one."""
    process = start(folder, 'dense_tiny.py', 'bas_tiny.py')
    first = folder / 'out' / 'runs' / 'dense_tiny' / 'seed0'
    wait_for(first / 'run.log', 'Epoch(train)')
    process.send_signal(signal.SIGKILL)
    process.communicate()
    wait_for(first / 'run.log', 'exiting with status 75')
    wait_for(first / 'last_checkpoint', 'interrupted.pth')
    again = start(
        folder, 'dense_tiny.py', 'bas_tiny.py', 'broken_tiny.py',
        options=('--results', 'kept'),
    )  # fmt: skip
    return *end(again), folder / 'out'


def read(path):
    with path.open(newline='') as file:
        return list(csv.DictReader(file))


def test_a_kill_loses_nothing(compared):
    _, _, out = compared
    log = (out / 'runs' / 'dense_tiny' / 'seed0' / 'commands.txt').read_text()
    begun, resumed, tested = log.splitlines()
    assert '--resume' not in begun and '--resume' in resumed
    assert tested.startswith('fgc-mm test ')
    text = (out / 'runs' / 'dense_tiny' / 'seed0' / 'run.log').read_text()
    assert 'resumed epoch: 0, iter: ' in text
    done = read(out / 'runs.csv')
    names = [(row['method'], row['seed']) for row in done]
    assert names == [(m, s) for m in ('dense_tiny', 'bas_tiny') for s in '01']


def test_numbers_are_kept_apart_from_the_runs(compared):
    _, _, out = compared
    kept = out.parent / 'kept'
    files = sorted(p.relative_to(kept).as_posix() for p in kept.rglob('*.*'))
    names = 'bas_tiny', 'dense_tiny'
    assert files == [f'{n}/seed{s}.json' for n in names for s in (0, 1)]
    for name in files:
        found = json.loads((kept / name).read_text())
        assert str(out.parent) not in (kept / name).read_text()
        assert [x['epoch'] for x in found['by_epoch']] == [1, 2]
        last = found['by_epoch'][-1]
        assert last['loss_cls' if 'bas' in name else 'loss'] > 0
        assert 0 <= last['accuracy/top1'] <= 100
        assert found['commands'][0].startswith('fgc-mm train ')
        sweep = found.get('threshold_sweep', [])
        assert bool(sweep) == ('bas' in name)  # the one with thresholds
        errors = {row['threshold']: 100 - row['accuracy'] for row in sweep}
        assert errors.get(0.5, found['error']) == found['error']
        assert len(errors) in (0, 11)


def test_one_fails_and_the_others_continue(compared):
    code, text, out = compared
    assert code == 1
    log = Path('out', 'runs', 'broken_tiny', 'seed1', 'run.log')
    failure = next(
        x for x in text.splitlines() if 'broken_tiny seed 1 has' in x
    )
    assert failure.startswith('error: ') and f'{log} ends: ' in failure
    # the log's own last word
    assert 'mat1 and mat2' in failure
    assert 'broken_tiny seed 0: failed' in (out / 'compare.md').read_text()


def lowest_error(folder):
    """Of all validations that a run has logged."""
    lines = [
        json.loads(line)
        for file in folder.glob('*/vis_data/scalars.json')
        for line in file.read_text().splitlines()
    ]
    found = [x['accuracy/top1'] for x in lines if 'accuracy/top1' in x]
    assert len(found) >= 2  # one per epoch
    return 100 - max(found)


def test_the_table_matches_the_runs(compared):
    _, _, out = compared
    rows = {row['method']: row for row in read(out / 'compare.csv')}
    for name in ('dense_tiny', 'bas_tiny'):
        found = [
            json.loads(
                (out / 'runs' / name / f'seed{s}/metrics.json').read_text()
            )
            for s in (0, 1)
        ]
        errors = [100 - metrics['accuracy/top1'] for metrics in found]
        row = rows[name]
        assert float(row['error_mean']) == pytest.approx(np.mean(errors))
        assert float(row['error_std']) == pytest.approx(np.std(errors, ddof=1))
        best = [lowest_error(out / 'runs' / name / f'seed{s}') for s in (0, 1)]
        assert float(row['best_error_mean']) == pytest.approx(np.mean(best))
        assert float(row['seconds_mean']) > 0
        if name == 'bas_tiny':
            ratios = [metrics['macs/pruning_ratio'] for metrics in found]
            told = float(row['macs/pruning_ratio_mean'])
            assert told == pytest.approx(np.mean(ratios))
    assert float(rows['dense_tiny']['macs/pruning_ratio_mean']) == 0
    assert rows['dense_tiny']['dynamic'] == 'False'
    # by hand: 3x3 convs of 4, 8 and 16 channels on 8, 4 and 2 pixels squared
    stage = [9 * c * c * s * s for c, s in ((4, 8), (8, 4), (16, 2))]
    convs = 6 * sum(stage) - (stage[1] + stage[2]) // 2
    dense = 9 * 3 * 4 * 64 + convs + 160
    assert float(rows['dense_tiny']['macs/mean_mean']) == dense
    text = (out / 'compare.md').read_text()
    assert (
        '| bas_tiny | measured | Digits, 80 / 60 / 60 images | yes | 2 |'
        in text
    )
    assert '--epochs 2' in text and 'torch 2.' in text
    assert (out / 'compare.png').stat().st_size > 5000


def test_stored_results_are_not_trained_again(folder, compared):
    """On another machine, say; and are not replaced by another run's."""
    options = '--work-dir', 'elsewhere', '--results', 'kept'
    arguments = 'dense_tiny.py', 'bas_tiny.py'
    before = {p: p.read_bytes() for p in (folder / 'kept').rglob('*.json')}
    code, text = end(start(folder, *arguments, options=options))
    assert code == 0 and 'training' not in text, text
    assert text.count('(read from kept/') == 4 and ' left)' not in text
    first, again = (
        {(row['method'], row['seed']): row for row in read(out / 'runs.csv')}
        for out in (compared[2], folder / 'elsewhere')
    )
    assert first == again
    code, text = end(
        start(folder, *arguments, options=(*options, '--epochs', '3'))
    )
    assert code == 2 and 'elsewhere' in text and 'epochs was 2' in text
    options = '--work-dir', 'third', '--results', 'kept', '--epochs', '3'
    code, text = end(start(folder, *arguments, options=options))
    assert code == 2 and 'the result of a run with other settings' in text
    assert {p: p.read_bytes() for p in before} == before


@pytest.mark.usefixtures('compared')
def test_the_answers_of_a_plan_are_printed(folder):
    (folder / 'plan.yaml').write_text(
        'title: two\nseeds: [0, 1]\nepochs: 2\n'
        'methods: [dense_tiny.py, bas_tiny.py]\n'
        'questions: [{ask: Which, row: bas_tiny, against: dense_tiny}]\n'
    )
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', COMPARE, '--plan', 'plan.yaml',
         '--work-dir', 'fourth', '--results', 'kept', '--threads', '1'],
        cwd=folder, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = re.findall('^- Which: .*', done.stdout, re.MULTILINE)
    assert 'points of error (95 % interval' in line and '2 seeds' in line


def test_static_pruning_from_one_dense_start(folder, compared):
    """And what is done already is taken, not run again."""
    whole = read(compared[2] / 'compare.csv')[0]['parameters_mean']
    options = ['--pretrain', 'dense_tiny.py', '--pretrain-epochs', '1']
    options += ['--work-dir', 'static', '--published-dataset', 'cifar10']
    arguments = dict(seeds=[0], options=options)
    code, text = end(start(folder, 'fpgm:dense_tiny.py', **arguments))
    assert code == 0, text
    rows = {r['method']: r for r in read(folder / 'static' / 'compare.csv')}
    assert [*rows] == ['start_dense_tiny', 'fpgm_tiny']
    pruned = rows['fpgm_tiny']
    ratio = float(pruned['macs/pruning_ratio_mean'])
    assert ratio == pytest.approx(55, abs=1)
    assert pruned['dynamic'] == 'False'
    assert float(pruned['parameters_mean']) < 0.6 * float(whole)
    runs = Path('static', 'runs')
    log = folder / runs / 'fpgm_tiny' / 'seed0' / 'commands.txt'
    pruning, training, _ = log.read_text().splitlines()
    assert f'{runs}/start_dense_tiny/seed0/epoch_1.pth' in pruning
    weights = 'fpgm_tiny/seed0/pruned/fpgm_tiny.pth'
    assert f'load_from={runs}/{weights}' in training
    stored = json.loads((log.parent / 'result.json').read_text())['commands']
    assert 'START_DIR/epoch_1.pth' in stored[0]
    assert not any(str(runs) in command for command in stored)
    code, text = end(start(folder, 'fpgm:dense_tiny.py', **arguments))
    assert code == 0 and 'ing\n' not in text, text
    assert text.count(': done: ') == 2


def test_all_start_from_the_dense_run_of_their_seed(folder, monkeypatch):
    monkeypatch.chdir(folder)
    entry = Entry('bas_tiny.py', start=Start('dense_tiny.py', 1))
    runs = plan(Study('x', (entry,), (4, 5), 2), Path('planned'))
    names = [run.name for run in runs]
    assert names == [f'start_dense_tiny seed {s}' for s in (4, 5)] + [
        f'bas_tiny seed {s}' for s in (4, 5)
    ]
    for run in runs[2:]:
        _, command = run.next_step()
        first = f'planned/runs/start_dense_tiny/seed{run.seed}/epoch_1.pth'
        assert command[-2:] == [f'randomness.seed={run.seed}',
                                f'load_from={first}']  # fmt: skip
        assert '--resume' not in command


@pytest.mark.parametrize(
    ('arguments', 'told'),
    [
        (['none.py'], 'none.py is not a file'),
        ([], 'no configs to compare'),
        (['dense_tiny.py', '--plan', 'x.yaml'], 'but both are given'),
        (['--plan', 'none.yaml'], 'none.yaml is not a file'),
        (['dense_tiny.py', './dense_tiny.py'], '2 rows are called'),
        (['fpgm:dense_tiny.py'], 'has nothing to prune'),
        (['best:dense_tiny.py'], "static pruning by 'best', which is unknown"),
        (['dense_tiny.py', '--seeds', '3', '3'], 'seed 3 is given twice'),
        (['dense_tiny.py', '--jobs', '0'], '--jobs is 0'),
        (['dense_tiny.py', '--results', 'dense_tiny.py'], 'is a file, but'),
        (['dense_tiny.py', '--pruning-ratio', '2'], '--pruning-ratio 2.0'),
        (['dense_tiny.py', '--pretrain-epochs', '2'], '--pretrain DENSE'),
        ([ROOT / 'configs' / 'dense_resnet20_folder.py'], 'is not a folder'),
        (['dense_tiny.py', '--published', 'no.csv'], 'no.csv is not a file'),
        (
            ['dense_tiny.py', '--epochs', '3', '--work-dir', 'out'],
            'epochs was 2 and is 3',
        ),
    ],
)
def test_bad_input_is_one_sentence(
    tool, folder, compared, monkeypatch, arguments, told
):
    del compared
    chdir = monkeypatch.chdir
    monkeypatch.setattr(monkeypatch, 'chdir', lambda _: chdir(folder))
    code, said = tool('compare', '--work-dir', 'bad', *arguments)
    assert code == 2
    assert told in said and said.count('error: ') == 1
    assert 'Traceback' not in said
