"""Sentences and figures of documents, from the kept results alone."""

import json

import pytest

from fgc_mm.comparison.documents.blocks import figures, update_blocks
from fgc_mm.errors import FGCError

from ...tools.conftest import TOOLS, load_tool

ROOT = TOOLS.parent
DOCUMENTS = ROOT / 'README.md', ROOT / 'docs' / 'comparison.md'

PLAN = """
seeds: [0, 1, 2]
methods: [x/a.py, {config: x/b.py, seeds: [0, 1]}, x/c.py]
questions:
  - {ask: A or B, row: a, against: b}
  - {ask: A or C, row: a, against: c}
"""
DOCUMENT = """<!-- results: {} of {} in kept -->
![Error](a.png)
<!-- end of results -->
"""


def keep(root, method, seed, error, ratio=55.0):
    folder = root / 'kept' / method
    folder.mkdir(parents=True, exist_ok=True)
    result = {
        'method': method, 'seed': seed, 'error': error, 'epochs': 30,
        'best_error': error, 'data': 'x', 'dynamic': True, 'parameters': 3,
        'macs/pruning_ratio': ratio, 'macs/mean': 4.5e6, 'seconds': 1800.0,
        'environment': {'threads per run': '2', 'CPU': 'one of them'},
    }  # fmt: skip
    (folder / f'seed{seed}.json').write_text(json.dumps(result))


@pytest.fixture
def root(tmp_path, monkeypatch):
    (tmp_path / 'plan.yaml').write_text(PLAN)
    (tmp_path / 'other.yaml').write_text('methods: [x/c.py, x/d.py]')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(root, kind='progress', plan='plan.yaml'):
    return update_blocks(DOCUMENT.format(kind, plan), root)


def test_seeds_are_counted_and_nothing_is_answered_by_one(root):
    assert 'a 0 of 3, b 0 of 2, c 0 of 3; runs missing: 8.' in said(root)
    keep(root, 'a', 0, 10.0)
    keep(root, 'b', 0, 11.0)
    keep(root, 'b', 7, 11.0)  # of another plan
    text = said(root)
    assert 'a 1 of 3, b 1 of 2, c 0 of 3; runs missing: 6.' in text
    assert 'Questions without an answer: 2 of 2;' in text
    assert 'better' not in text


@pytest.mark.parametrize(
    ('errors', 'verdict'),
    [
        ((11.0, 12.1), 'a is better than b, -1.05 points of error'),
        ((9.0, 9.9), 'a is worse than b, +1.05 points of error'),
        ((9.0, 12.5), 'no significant difference between a and b, -0.25'),
    ],
)
def test_an_answer_is_decided_by_the_interval(root, errors, verdict):
    for seed, own, other in zip((0, 1), (10.0, 11.0), errors):
        keep(root, 'a', seed, own)
        keep(root, 'b', seed, other)
    text = said(root)
    assert verdict in text
    assert 'without an answer: 1 of 2' in text and '2 seeds)' in text


def test_answers_alone_need_three_seeds(root):
    for seed, errors in enumerate([(10.0, 11.0), (11.0, 12.1)]):
        keep(root, 'a', seed, errors[0])
        keep(root, 'b', seed, errors[1])
    assert 'a is better than b' not in said(root, 'answers')
    keep(root, 'a', 2, 10.0)
    keep(root, 'b', 2, 11.0)
    text = said(root, 'answers')
    (line,) = [x for x in text.splitlines() if x.startswith('- ')]
    assert 'a is better than b' in line and '3 seeds' in line


def test_unequal_macs_are_named(root):
    for seed in (0, 1):
        keep(root, 'a', seed, 10.0 + seed)
        keep(root, 'b', seed, 11.0 + seed, ratio=50.0)
    assert '2 seeds, at unequal MACs)' in said(root)


def test_all_seeds(root):
    for seed in (0, 1, 2):
        for method in 'abc':
            keep(root, method, seed, 10.0 + seed)
    text = said(root)
    assert 'All seeds are trained: a 3 of 3, b 2 of 2, c 3 of 3.' in text
    assert 'without an answer' not in text


def test_several_plans_are_one_table(root):
    keep(root, 'c', 0, 12.0)
    keep(root, 'a', 0, 12.0)
    text = said(root, 'table', 'plan.yaml,other.yaml')
    rows = [x.split(' | ')[0][2:] for x in text.splitlines() if '| ' in x]
    assert sorted(rows) == ['---', 'a', 'c', 'method']
    assert 'Not trained yet: b, d.' in text


def test_a_figure_keeps_its_image_and_gets_a_caption(root):
    keep(root, 'a', 0, 10.0)
    text = said(root, 'figure')
    assert '\n![Error](a.png)\n\n' in text
    assert 'Not trained yet: b, c.' in text
    assert said(root, 'figure') == update_blocks(text, root)
    (figure,) = figures(text, root, root)
    assert figure.file == root / 'a.png'
    assert (len(figure.study.entries), len(figure.results)) == (3, 1)
    with pytest.raises(FGCError, match='has no image in its block'):
        update_blocks(text.replace('![', '['), root)


def test_a_figure_is_compared_with_the_results(root):
    keep(root, 'a', 0, 10.0)
    text = said(root, 'figure')

    def figure():
        return figures(text, root, root)[0]

    assert not figure().is_up_to_date()
    figure().write()
    assert figure().is_up_to_date() and (root / 'a.svg').is_file()
    keep(root, 'a', 0, 10.1)
    assert not figure().is_up_to_date()
    figure().write()
    (root / 'a.svg').unlink()
    assert not figure().is_up_to_date()


def test_a_figure_of_other_labels_is_not_up_to_date(root):
    keep(root, 'a', 0, 10.0)
    text = said(root, 'figure')
    figures(text, root, root)[0].write()
    plan = root / 'plan.yaml'
    plan.write_text(PLAN.replace('x/a.py,', '{config: x/a.py, label: A},'))
    assert not figures(text, root, root)[0].is_up_to_date()


def test_the_tool_draws_and_checks(root, capsys):
    tool = load_tool('analysis_tools/update_results')
    keep(root, 'a', 0, 10.0)
    page = root / 'page.md'
    page.write_text(DOCUMENT.format('figure', 'plan.yaml'))
    assert tool.update(page, check=True)
    assert not (root / 'a.png').exists() and 'Not trained' not in (
        page.read_text()
    )
    assert tool.update(page, check=False)
    assert 'updated: a.png and .svg' in capsys.readouterr().out.replace(
        f'{root}/', ''
    )
    assert not tool.update(page, check=True)
    keep(root, 'a', 1, 12.0)
    assert tool.update(page, check=True)


@pytest.mark.parametrize('document', DOCUMENTS, ids=lambda file: file.stem)
def test_our_figures_match_the_results(document):
    found = figures(document.read_text(), ROOT, document.parent)
    assert found and all(figure.is_up_to_date() for figure in found)


def test_rows_are_called_by_their_labels(root):
    (root / 'plan.yaml').write_text(
        'methods: [{config: x/a.py, label: A (new)}, {config: x/b.py,'
        ' label: B}, {config: x/c.py, label: C}]\n'
        'questions: [{ask: Which, row: a, against: b}]'
    )
    for seed in range(3):
        keep(root, 'a', seed, 10.0 + 0.1 * seed)
        keep(root, 'b', seed, 12.0)
    assert 'A (new) 3 of 3, B 3 of 3, C 0 of 3' in said(root)
    assert '- Which: A (new) is better than B, ' in said(root, 'answers')
    table = said(root, 'table')
    assert '| A (new) | 3 | ' in table and 'Not trained yet: C.' in table
    assert '| one of them | `b` |' in said(root, 'costs')
    assert '| B | 3 | 30 | ' in said(root, 'costs')
