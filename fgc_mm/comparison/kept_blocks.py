"""Blocks of documents that are made from kept results."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import FGCError, check_choice
from .kept import read_kept
from .kept_tables import (
    Results,
    costs_table,
    questions_table,
    results_table,
)
from .kept_text import caption, progress
from .plan_file import read_study
from .study import Study

BEGIN, END = '<!-- results:', '<!-- end of results -->'
FIGURE = 'figure'
IMAGE = re.compile(r'!\[[^\]]*\]\((?P<file>[^)\s]+\.png)\)')
BLOCK = re.compile(
    rf'({BEGIN} (?P<kind>\S+) of (?P<plan>\S+) in (?P<folder>\S+) -->\n)'
    rf'(?P<body>(?:(?!{BEGIN}).)*?)(?={END})',
    re.DOTALL,
)
Renderer = Callable[[Study, Results], str]
KINDS: dict[str, Renderer] = {
    'table': results_table,
    'questions': questions_table,
    'costs': costs_table,
    'progress': progress,
}


def update_blocks(text: str, root: Path) -> str:
    """A document with its blocks of results made anew.

    A block stands between ``<!-- results: KIND of PLAN in FOLDER -->`` and
    ``<!-- end of results -->``; KIND is table, questions, costs, progress
    (how many seeds there are, and what they answer) or figure; PLAN, or
    several with commas between them, and FOLDER are relative to ``root``.
    A figure's block holds its image, as ``![TEXT](FILE.png)``, and gets a
    caption.

    Raises:
        FGCError: A kind, a plan or a result cannot be read, a block has
            no end, or a figure's no image.
    """

    def block(match: re.Match[str]) -> str:
        found = _block(match, root)
        if found.kind == FIGURE:
            content = f'{found.image}\n\n{caption(found.study, found.results)}'
        else:
            content = KINDS[found.kind](found.study, found.results)
        return f'{match[1]}\n{content}\n'

    _check_whole(text)
    return BLOCK.sub(block, text)


def figures(text: str, root: Path) -> dict[str, tuple[Study, Results]]:
    """What the figures of a document show, by the name of their files.

    Args:
        text: The document.
        root: What plans and folders are relative to.

    Raises:
        FGCError: As :func:`update_blocks`.
    """
    _check_whole(text)
    blocks = [_block(match, root) for match in BLOCK.finditer(text)]
    figures = [(IMAGE.fullmatch(b.image), b) for b in blocks]
    return {
        image['file']: (block.study, block.results)
        for image, block in figures
        if block.kind == FIGURE and image is not None
    }


@dataclass(frozen=True)
class Block:
    """A block of a document.

    Attributes:
        kind: One of ``KINDS``, or ``FIGURE``.
        study: Its rows and questions.
        results: Of the rows.
        image: The Markdown of a figure.
    """

    kind: str
    study: Study
    results: Results
    image: str = ''


def _check_whole(text: str) -> None:
    found, begun = len(BLOCK.findall(text)), text.count(BEGIN)
    if not found == begun == text.count(END):
        raise FGCError(
            f'{begun} blocks of results begin and {text.count(END)} end, of '
            f'which {found} are whole; write {BEGIN} KIND of PLAN in FOLDER '
            f'--> and {END} around each.'
        )


def _block(match: re.Match[str], root: Path) -> Block:
    kind, kinds = match['kind'], (*KINDS, FIGURE)
    check_choice(
        f'a block of results is of the kind {kind!r}, which', kind, kinds
    )
    study = _joined(read_study(root / p) for p in match['plan'].split(','))
    results = read_kept(root / match['folder'], study)
    if kind != FIGURE:
        return Block(kind, study, results)
    image = IMAGE.search(match['body'])
    if image is None:
        raise FGCError(
            f'the figure of {match["plan"]} has no image in its block; write '
            '![TEXT](FILE.png) there.'
        )
    return Block(kind, study, results, image[0])


def _joined(studies: Iterable[Study]) -> Study:
    """The rows of all, each once, and their questions."""
    first, *others = studies
    entries = {entry.row: entry for entry in first.entries}
    for study in others:
        for entry in study.entries:
            own = replace(entry, seeds=entry.seeds or study.seeds)
            entries.setdefault(entry.row, own)
    questions = [q for study in others for q in study.questions]
    return replace(
        first,
        entries=tuple(entries.values()),
        questions=(*first.questions, *questions),
    )
