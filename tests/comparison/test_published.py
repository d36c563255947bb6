"""The rules of the file of published numbers, and how it is shown."""

import pytest

from fgc_mm.comparison.table import (
    PUBLISHED,
    PUBLISHED_FILE,
    markdown,
    published_for,
    read_published,
)
from fgc_mm.errors import FGCError
from fgc_mm.functional.macs import COUNTINGS

ROWS = read_published(PUBLISHED_FILE)
NAMES = [f'{r["method"]} {r["backbone"]} {r["dataset"]}' for r in ROWS]
BACKBONES = {
    'resnet18', 'resnet20', 'resnet32', 'resnet34', 'resnet56', 'vgg16',
    'mobilenetv1',
}  # fmt: skip
PERCENT = (
    'dense_error', 'error', 'dense_top5_error', 'top5_error', 'pruning_ratio',
)  # fmt: skip


@pytest.mark.parametrize('row', ROWS, ids=NAMES)
def test_every_row_is_whole(row):
    assert row['method'] and row['source'] and row['error']
    assert all(value == value.strip() for value in row.values())
    assert row['backbone'] in BACKBONES
    assert row['dataset'] in ('cifar10', 'cifar100', 'imagenet')
    assert row['which_epoch'] in ('best', 'last', 'unknown')
    assert row['counting'] in (*COUNTINGS, 'unknown')
    assert row['table'] == '' or row['table'].startswith(('Table ', 'Figure '))
    numbers = {k: float(row[k]) for k in PERCENT if row[k]}
    assert all(0 < value < 100 for value in numbers.values())
    for error in ('error', 'dense_error'):
        five = error.replace('error', 'top5_error')
        if error in numbers and five in numbers:
            assert numbers[five] < numbers[error]
    if 'dense_error' in numbers:  # percent of error, not of accuracy
        assert abs(numbers['error'] - numbers['dense_error']) < 5
    assert numbers['error'] < 40
    # where it is known, a share of the MACs removed, not kept as a fraction
    assert 20 < numbers.get('pruning_ratio', 50) < 80


def test_no_result_is_given_twice():
    keys = [(r['method'], r['backbone'], r['dataset'], r['error'])
            for r in ROWS]  # fmt: skip
    assert len(keys) == len(set(keys))


def test_a_networks_dense_error_is_one_per_source():
    known = {}
    for row in ROWS:
        if row['dense_error']:
            key = row['source'], row['backbone'], row['dataset']
            assert (
                known.setdefault(key, row['dense_error'])
                == (row['dense_error'])
            )
    assert len(known) > 12


def test_rows_of_other_methods_are_sourced_where_they_were_found():
    """FGC's paper quotes FBS from ManiDP, whose table is the source."""
    fbs = [row for row in ROWS if row['method'] == 'FBS']
    assert {(r['source'], r['table'], r['which_epoch']) for r in fbs} == {
        ('ManiDP (CVPR 2021)', 'Table 4', 'unknown')
    }
    best = {row['method'].split()[0] for row in ROWS
            if row['which_epoch'] == 'best'}  # fmt: skip
    assert best == {'FGC', 'BAS'}  # published for these only


def test_unknown_numbers_have_a_table_of_their_own():
    theirs = published_for(ROWS, ['fgc_resnet20_cifar10', 'k5'])
    lines = markdown([], theirs).splitlines()
    head, *_ = ([c.strip() for c in x.split('|')[1:-1]] for x in lines)
    cells = [[c.strip() for c in x.split('|')[1:-1]] for x in lines[2:]]
    found = {row[0]: dict(zip(head, row)) for row in cells}
    assert all(len(row) == len(head) for row in cells)
    fbs, k5 = found['FBS resnet20'], found['FGC K=5 resnet20']
    assert fbs['error %, last epoch'] == '9.03, epoch unknown'
    assert fbs['numbers'] == 'published: ManiDP (CVPR 2021), Table 4'
    assert k5['error %, best epoch'] == '8.47 (dense 7.22)'
    assert k5['error %, last epoch'] == k5['pruned %, as published'] == ''


HEAD = ','.join(PUBLISHED)


@pytest.mark.parametrize(
    ('content', 'told'),
    [
        (HEAD, 'has no row'),
        (f'{HEAD}\nFGC,resnet20,cifar10', "row of 'FGC' in .* 12 fields"),
        (f'{HEAD}\nFGC{"," * 12}', "row of 'FGC' in .* 12 fields"),
        (f'{HEAD}\nZürich{"," * 11}', 'cannot be read .* in UTF-8'),
    ],
)
def test_a_file_that_is_not_complete_is_refused(tmp_path, content, told):
    """At the start, not when the first run has ended."""
    file = tmp_path / 'own.csv'
    file.write_bytes(content.encode('latin-1'))
    with pytest.raises(FGCError, match=told):
        read_published(file)
