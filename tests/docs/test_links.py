"""Links between the pages have a target; none is downloaded."""

import pytest

from .pages import PAGES, ROOT, anchors, links


def broken(page):
    """Targets of a page that are not there."""
    for target in links(page):
        if '://' in target or target.startswith('mailto:'):
            continue
        path, _, anchor = target.partition('#')
        file = (page.parent / path).resolve() if path else page
        there = file.exists() and file.is_relative_to(ROOT)
        if there and anchor:
            there = all(anchor in found for found in anchors(file))
        if not there:
            yield target


@pytest.mark.parametrize(
    'page', PAGES, ids=lambda page: str(page.relative_to(ROOT))
)
def test_links_and_anchors_exist(page):
    assert list(broken(page)) == []


def test_a_broken_link_is_seen(tmp_path):
    page = tmp_path / 'page.md'
    page.write_text(
        '# A `b.C` d\n[one](#a-bc-d) [two](#a) [three](no.md)\n'
        '```\n[four](no.md)\n```\n`[five](no.md)` ![six](no.png)\n'
    )
    assert list(links(page)) == ['#a-bc-d', '#a', 'no.md', 'no.png']
    assert 'a-bc-d' in anchors(page)[0] & anchors(page)[1]


def test_every_page_is_linked_from_the_readme():
    named = {target.partition('#')[0] for target in links(ROOT / 'README.md')}
    pages = {f'docs/{page.name}' for page in (ROOT / 'docs').glob('*.md')}
    assert pages - named == {'docs/index.md'}
