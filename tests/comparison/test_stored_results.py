"""Tables of documents, from the files of kept results alone."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from fgc_mm.cli.commands import compare
from fgc_mm.comparison import stored_results
from fgc_mm.comparison.documents.blocks import update_blocks
from fgc_mm.comparison.entry import Entry
from fgc_mm.comparison.study import Study
from fgc_mm.errors import FGCError

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = """# Title
<!-- results: {kind} of plan.yaml in kept -->
old
<!-- end of results -->
after
"""


@pytest.fixture
def root(tmp_path):
    (tmp_path / 'plan.yaml').write_text(
        'methods: [x/a.py, x/b.py, x/c.py]\n'
        'questions: [{ask: A or B, row: a, against: b}]'
    )
    for method, seed, error in (
        ('b', 1, 12.0), ('a', 1, 11.5), ('a', 0, 10.5), ('b', 0, 11.0),
    ):  # fmt: skip
        folder = tmp_path / 'kept' / method
        folder.mkdir(parents=True, exist_ok=True)
        result = {
            'method': method, 'seed': seed, 'error': error, 'epochs': 30,
            'best_error': error - 1, 'data': 'x', 'dynamic': True,
            'macs/pruning_ratio': 55.0, 'macs/mean': 4.5e6,
            'parameters': 3, 'seconds': 1800.0,
            'environment': {'threads per run': '2', 'CPU': 'one of them'},
        }  # fmt: skip
        (folder / f'seed{seed}.json').write_text(json.dumps(result))
    return tmp_path


def test_a_table_has_every_trained_row_and_names_the_others(root):
    text = update_blocks(DOCUMENT.format(kind='table'), root)
    assert text.startswith('# Title\n<!-- results: table of')
    assert text.endswith('<!-- end of results -->\nafter\n')
    row = '| a | 2 | 11.00 ± 0.71 | 10.00 ± 0.71 | 55.0 ± 0.0 | 4,500,000 |'
    assert row in text and 'old' not in text
    assert '\n\nNot trained yet: c.\n' in text
    assert text.index('| a |') < text.index('| b |')
    assert update_blocks(text, root) == text


def test_questions_and_costs(root):
    text = update_blocks(DOCUMENT.format(kind='questions'), root)
    assert '| A or B | 0, 1 | -0.50 ± 0.00 | -0.50 to -0.50 | +0.00 |' in text
    text = update_blocks(DOCUMENT.format(kind='costs'), root)
    assert '| a | 2 | 30 | 2.0 | one of them |' in text


def test_what_is_unknown_or_damaged_is_one_sentence(root):
    with pytest.raises(FGCError, match="'tables', which is unknown"):
        update_blocks(DOCUMENT.format(kind='tables'), root)
    for damaged in ('{', 'null', '[1]', '{"seed": 0}'):
        (root / 'kept' / 'a' / 'seed0.json').write_text(damaged)
        with pytest.raises(FGCError, match=r'seed0\.json is not a result'):
            update_blocks(DOCUMENT.format(kind='table'), root)


@pytest.mark.parametrize(
    'change',
    [
        ('<!-- end of results -->', ''),
        (' of plan.yaml', ''),
        (' -->\nold', '-->\nold'),
        ('<!-- results:', '<!-- result:'),
    ],
)
def test_a_block_that_is_not_whole_is_refused(root, change):
    """It must neither stay as it was nor take the text up to the next."""
    document = DOCUMENT.format(kind='table')
    text = document.replace(*change) + document
    with pytest.raises(FGCError, match='write <!-- results: KIND of PLAN'):
        update_blocks(text, root)


def test_text_without_blocks_is_unchanged():
    assert update_blocks('# Title\n', ROOT) == '# Title\n'


def documents():
    files = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]
    return [file for file in files if '<!-- results:' in file.read_text()]


@pytest.mark.parametrize('file', documents(), ids=lambda file: file.stem)
def test_our_documents_match_the_results(file):
    text = file.read_text()
    assert update_blocks(text, ROOT) == text


def test_a_start_that_is_trained_again_keeps_its_stored_result(monkeypatch):
    """It was trained for its weights alone."""
    module = compare
    stored, written = {'error': 12.0}, []
    run = SimpleNamespace(name='dense seed 0', state='done')
    monkeypatch.setattr(module, 'read_result', lambda _: {'error': 13.0})
    monkeypatch.setattr(module, 'find_stored_result', lambda *_: stored)
    monkeypatch.setattr(module, 'store_result', lambda *x: written.append(x))
    monkeypatch.setattr(module.Comparison, '__post_init__', lambda _: None)
    comparison = module.Comparison([run], Path(), [], 1, Path('kept'), None)
    comparison._finish(run)
    assert comparison.results == {run.name: stored} and not written
    stored = None
    comparison._finish(run)
    assert comparison.results == {run.name: {'error': 13.0}}
    assert len(written) == 1


def test_a_row_with_brackets_in_its_name_is_read(tmp_path):
    result = dict.fromkeys(stored_results.NEEDED, 1)
    result.update(method='fgc[0.4]', seed=0)
    (tmp_path / 'fgc[0.4]').mkdir()
    (tmp_path / 'fgc[0.4]' / 'seed0.json').write_text(json.dumps(result))
    study = Study('x', (Entry('a.py', name='fgc[0.4]'),))
    assert stored_results.read_stored_results(tmp_path, study) == [result]


@pytest.mark.parametrize('content', [dict(method='b'), dict(seed=1)])
def test_a_file_of_another_run_is_refused(tmp_path, content):
    """Of a row that was renamed, say."""
    result = dict.fromkeys(stored_results.NEEDED, 1)
    result.update({'method': 'a', 'seed': 0, **content})
    (tmp_path / 'a').mkdir()
    (tmp_path / 'a' / 'seed0.json').write_text(json.dumps(result))
    study = Study('x', (Entry('a.py', name='a'),))
    with pytest.raises(FGCError, match=r'seed0\.json is not a result \(it'):
        stored_results.read_stored_results(tmp_path, study)
