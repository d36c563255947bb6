"""Blocks of Markdown documents that are made from stored results."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ...errors import FGCError, check_choice
from ..plan_file import read_study
from ..stored_results import read_stored_results
from ..study import Study
from ..table import Results
from .figure_files import ResultFigure
from .sentences import answers, caption, progress
from .tables import costs_table, questions_table, results_table

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
    'answers': answers,
}


def update_blocks(text: str, root: Path) -> str:
    """A document with its blocks of results updated.

    A block is between ``<!-- results: KIND of PLAN in FOLDER -->`` and
    ``<!-- end of results -->``. KIND is table, questions, answers (as
    sentences), costs, progress (the numbers of trained seeds and the answers
    so far) or figure. PLAN (or several, separated by commas) and FOLDER are
    relative to ``root``. The block of a figure contains its image, as
    ``![TEXT](FILE.png)``; a caption is added.

    Raises:
        FGCError: The kind is unknown, a plan or a result cannot be read, a
            block has no end, or the block of a figure no image.
    """

    def block(match: re.Match[str]) -> str:
        found = _block(match, root)
        if found.image is not None:
            below = caption(found.study, found.results)
            content = f'{found.image[0]}\n\n{below}'
        else:
            content = KINDS[found.kind](found.study, found.results)
        return f'{match[1]}\n{content}\n'

    _check_ends(text)
    return BLOCK.sub(block, text)


def figures(text: str, root: Path, folder: Path) -> list[ResultFigure]:
    """The figures of a document, whose images are relative to a folder.

    Raises:
        FGCError: As :func:`update_blocks`.
    """
    _check_ends(text)
    blocks = [_block(match, root) for match in BLOCK.finditer(text)]
    return [
        ResultFigure(folder / block.image['file'], block.study, block.results)
        for block in blocks
        if block.image is not None
    ]


class Block(NamedTuple):
    """A block of a document; that of a figure has an image (Markdown)."""

    kind: str
    study: Study
    results: Results
    image: re.Match[str] | None = None


def _check_ends(text: str) -> None:
    found, begun = len(BLOCK.findall(text)), text.count(BEGIN)
    if not found == begun == text.count(END):
        raise FGCError(
            f'{begun} blocks of results begin and {text.count(END)} end, of '
            f'which {found} are complete; write {BEGIN} KIND of PLAN in '
            f'FOLDER --> and {END} around each.'
        )


def _block(match: re.Match[str], root: Path) -> Block:
    kind, kinds = match['kind'], (*KINDS, FIGURE)
    check_choice(
        f'a block of results is of the kind {kind!r}, which', kind, kinds
    )
    study = read_studies(match['plan'], root)
    results = read_stored_results(root / match['folder'], study)
    if kind != FIGURE:
        return Block(kind, study, results)
    image = IMAGE.search(match['body'])
    if image is None:
        raise FGCError(
            f'the figure of {match["plan"]} has no image in its block; write '
            '![TEXT](FILE.png) there.'
        )
    return Block(kind, study, results, image)


def read_studies(plans: str, root: Path) -> Study:
    """The rows of all plans, each once, and their questions.

    Args:
        plans: Separated by commas, relative to ``root``.
        root: A folder.

    Raises:
        FGCError: A plan cannot be read.
    """
    first, *others = [read_study(root / plan) for plan in plans.split(',')]
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
