"""Rows of the coverage tables: stored ones, and where the table goes."""

import json
from argparse import Namespace

import pytest

from fgc_mm.cli.commands import program_coverage, zoo_coverage
from fgc_mm.cli.coverage_rows import StoredRows
from fgc_mm.cli.run_tool import run_tool

Row = zoo_coverage.Row


def test_rows_are_stored_once(tmp_path):
    file = tmp_path / 'new' / 'rows.jsonl'
    store = StoredRows(file, Row)
    assert store.find('a', lambda: Row('A', 'passed')).backbone == 'A'
    again = StoredRows(file, Row)
    assert again.find('a', pytest.fail) == Row('A', 'passed')
    assert again.find('b', lambda: Row('B', 'failed')).result == 'failed'
    assert len(file.read_text().splitlines()) == 2


def test_rows_of_older_versions_are_read(tmp_path):
    entry = dict(kind='A', row=dict(model='a', result='no site'))
    (tmp_path / 'rows.jsonl').write_text(json.dumps(entry) + '\n')
    rows = StoredRows(tmp_path / 'rows.jsonl', program_coverage.Row).rows
    assert rows == {'A': program_coverage.Row('a', 'no site')}


@pytest.mark.parametrize('module', [zoo_coverage, program_coverage])
def test_the_folder_of_the_table_is_made(tmp_path, monkeypatch, module):
    (tmp_path / 'file').touch()
    row = module.Row('a', 'no site', 'why')
    monkeypatch.setattr(module, 'in_a_process', lambda *_: row)
    known = {'A': ('a', {})}
    monkeypatch.setattr(zoo_coverage, 'list_backbones', lambda _: [('a', {})])
    monkeypatch.setattr(program_coverage, 'smallest_models', lambda: known)
    args = Namespace(
        rows=tmp_path / 'rows.jsonl', report=tmp_path / 'new' / 'table.md',
        seconds=1, pattern=None, only=None,
    )  # fmt: skip
    module.main(args)
    assert '| a |' in args.report.read_text()
    # before anything is tested
    args.rows, args.report = tmp_path / 'other.jsonl', tmp_path / 'file' / 'x'
    assert run_tool(lambda: module.main(args)) == 2
    assert not args.rows.exists()


def test_a_line_that_a_kill_has_cut_is_made_again(tmp_path):
    file = tmp_path / 'rows.jsonl'
    store = StoredRows(file, Row)
    store.find('a', lambda: Row('A', 'passed'))
    with file.open('a') as stream:
        stream.write('{"key": "b", "ro')
    again = StoredRows(file, Row)
    assert list(again.rows) == ['a']
    again.find('b', lambda: Row('B', 'failed'))
    assert list(StoredRows(file, Row).rows) == ['a', 'b']
