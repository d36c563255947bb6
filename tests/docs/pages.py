"""What the pages of the documentation contain."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob('*.md'), *(ROOT / 'docs').rglob('*.md')])
FENCE = re.compile(r'^(```+)[^\n]*\n.*?^\1\n', re.DOTALL | re.MULTILINE)
BLOCK = re.compile(
    r'(?:<!-- (?P<mark>[^>]*) -->\n\n)?```python\n(?P<code>.*?)^```',
    re.DOTALL | re.MULTILINE,
)
HEADING = re.compile(r'^#+ (.*)$', re.MULTILINE)
LINK = re.compile(r'\]\(([^)\s]+)\)')


@dataclass(frozen=True)
class Block:
    """A Python block.

    Attributes:
        code: Its text.
        line: Its first line on the page.
        mark: Of the HTML comment above it: ``config``, ``given: NAMES``,
            ``not run: REASON``, or nothing.
    """

    code: str
    line: int
    mark: str


def python_blocks(page: Path) -> list[Block]:
    """The Python blocks of a page, in order."""
    text = page.read_text()
    return [
        Block(
            found['code'],
            text.count('\n', 0, found.start('code')) + 1,
            found['mark'] or '',
        )
        for found in BLOCK.finditer(text)
    ]


def prose(page: Path) -> str:
    """The text of a page without its code blocks."""
    return FENCE.sub('', page.read_text())


def links(page: Path) -> list[str]:
    """Targets of a page's links and images."""
    text = re.sub(r'`[^`\n]*`(?!\])', '', prose(page))
    return LINK.findall(text)


def anchors(page: Path) -> tuple[set[str], set[str]]:
    """Anchors of a page's headings, on a code host and on the site."""
    headings = [
        re.sub(r'\[([^\]]*)\]\([^)]*\)', r'\1', title).replace('`', '')
        for title in HEADING.findall(prose(page))
    ]
    bare = [
        re.sub(r'[^\w\s-]', '', title).strip().lower() for title in headings
    ]
    hosted = {title.replace(' ', '-') for title in bare}
    built = {re.sub(r'[-\s]+', '-', title) for title in bare}
    return hosted, built
