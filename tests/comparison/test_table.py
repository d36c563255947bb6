"""Numbers: from logs to rows, against naive ones."""

import csv
import io
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fgc_mm.comparison.results import (
    by_epoch,
    epochs_done,
    training_seconds,
)
from fgc_mm.comparison.table import (
    PUBLISHED,
    PUBLISHED_FILE,
    MeanStd,
    check_published_dataset,
    markdown,
    published_for,
    read_published,
    rows_of,
    table_csv,
)
from fgc_mm.errors import FGCError


def result(method, seed, error, dynamic=True, **more):
    return dict(
        method=method, seed=seed, epochs=2, data='Digits', dynamic=dynamic,
        error=error, best_error=error - 1, parameters=100, seconds=90.0,
        **{'macs/mean': 5e6, 'macs/dense': 1e7, 'macs/pruning_ratio': 50.0},
        **more,
    )  # fmt: skip


def log(folder, start, lines):
    path = folder / start / 'vis_data'
    path.mkdir(parents=True)
    text = [x if isinstance(x, str) else json.dumps(x) for x in lines]
    (path / 'scalars.json').write_text('\n'.join(text))


def step(epoch, time):
    return dict(epoch=epoch, time=time, step=epoch * 10)


def val(epoch, accuracy):
    return {'accuracy/top1': accuracy, 'time': 9.0, 'step': epoch}


@pytest.fixture
def run(tmp_path):
    """Three epochs, killed in the third and resumed."""
    log(tmp_path, '20260102_1', [step(3, 3.0), val(3, 92.0)])
    log(
        tmp_path,
        '20260101_1',
        [
            step(1, 1.0), step(1, 1.0), step(1, 500.0), val(1, 80.0),
            step(2, 2.0), val(2, 95.5), step(3, 3.0), '{"epoch": 3, "ti',
        ],
    )  # fmt: skip
    checkpoint = tmp_path / 'epoch_3.pth'
    meta = dict(epoch=3, iter=30)
    torch.save(dict(meta=meta, state_dict=dict(w=torch.ones(1))), checkpoint)
    return SimpleNamespace(folder=tmp_path, last_checkpoint=checkpoint)


def test_numbers_of_the_logs(run):
    errors = {
        e['epoch']: 100 - e['accuracy/top1'] for e in by_epoch(run.folder)
    }
    assert errors == {1: 20.0, 2: 4.5, 3: 8.0}
    # 10 steps of 1, 2 and 3 s: the pause in epoch 1 does not count
    assert training_seconds(run) == pytest.approx(60)
    assert epochs_done(run.folder) == (3, 8.0)


def test_progress_of_a_run_that_has_just_begun(tmp_path):
    assert epochs_done(tmp_path) == (0, None)
    log(tmp_path, 'a', [step(1, 1.0), step(2, 1.0)])
    assert epochs_done(tmp_path) == (1, None)


def test_mean_and_sample_deviation():
    errors = [8.1, 8.6, 7.9]
    results = [result('a', s, e) for s, e in enumerate(errors)]
    results.append(result('b', 0, 7.0, dynamic=False))
    a, b = rows_of(results)
    assert a.values['error'].mean == pytest.approx(np.mean(errors))
    assert a.values['error'].std == pytest.approx(np.std(errors, ddof=1))
    assert a.values['best_error'].mean == pytest.approx(np.mean(errors) - 1)
    assert (a.seeds, b.seeds) == ((0, 1, 2), (0,))
    assert b.values['error'].std is None
    assert MeanStd.of([1.0, 2.0]).text(1) == '1.5 ± 0.7'


def test_every_ratio_gets_a_column_and_published_ones_are_marked():
    results = [
        result('fgc_resnet20_cifar10', 0, 8.0,
               **{'macs/pruning_ratio_fgc_pr': 51.5}),
        result('dense_resnet20_cifar10', 0, 7.0, dynamic=False),
    ]  # fmt: skip
    rows = rows_of(results)
    theirs = published_for(
        read_published(PUBLISHED_FILE), [row.method for row in rows]
    )
    assert {r['dataset'] for r in theirs} == {'cifar10'}
    assert {r['backbone'] for r in theirs} == {'resnet20'}
    lines = markdown(rows, theirs).splitlines()
    head, fgc, dense = (
        [cell.strip() for cell in lines[i].split('|')[1:-1]] for i in (0, 2, 3)
    )
    cells = dict(zip(head, fgc))
    assert cells['pruned %, counted as fgc-pr'] == '51.5'
    assert cells['pruned %, honest'] == '50.0'
    assert cells['error %, last epoch'] == '8.00'
    assert dict(zip(head, dense))['pruned %, counted as fgc-pr'] == ''
    assert len(lines) == 4 + len(theirs)
    assert all('| published: ' in line for line in lines[4:])
    assert all(line.count('|') == len(head) + 1 for line in lines)
    table = list(csv.DictReader(io.StringIO(table_csv(rows, theirs))))
    assert table[0]['macs/pruning_ratio_fgc_pr_mean'] == '51.5'
    assert [r['numbers'] for r in table[:3]] == ['measured'] * 2 + [
        'published'
    ]


def test_published_numbers_are_those_of_the_data_set():
    published = read_published(PUBLISHED_FILE)
    for name in ('fgc_resnet20_digits', 'fgc_resnet20_folder'):
        assert not published_for(published, [name])
    found = published_for(published, ['fgc_resnet20_folder'], 'cifar100')
    assert {r['dataset'] for r in found} == {'cifar100'}
    assert {r['backbone'] for r in found} == {'resnet20'}


def test_bad_input(tmp_path):
    with pytest.raises(FGCError, match='is not a file'):
        read_published(tmp_path / 'no.csv')
    other = tmp_path / 'other.csv'
    other.write_text('a,b\n1,2\n')
    with pytest.raises(FGCError, match='has the columns'):
        read_published(other)
    assert len(PUBLISHED) == 12
    with pytest.raises(FGCError, match='mnist has no published numbers'):
        check_published_dataset(read_published(PUBLISHED_FILE), 'mnist')
