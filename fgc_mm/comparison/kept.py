"""Tables of results that were kept, from their files alone."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import FGCError
from .kept_text import caption, progress
from .markdown import markdown_table
from .plan_file import read_study
from .questions import answer, answers_markdown
from .study import Study
from .table import Row, rows_of

NEEDED = {
    'method', 'seed', 'error', 'best_error', 'epochs', 'data', 'dynamic',
    'macs/mean', 'macs/pruning_ratio', 'parameters', 'seconds', 'environment',
}  # fmt: skip
BEGIN, END = '<!-- results:', '<!-- end of results -->'
FIGURE = 'figure'
IMAGE = re.compile(r'!\[[^\]]*\]\((?P<file>[^)\s]+\.png)\)')
Results = Sequence[dict[str, Any]]
BLOCK = re.compile(
    rf'({BEGIN} (?P<kind>\S+) of (?P<plan>\S+) in (?P<folder>\S+) -->\n)'
    rf'(?P<body>(?:(?!{BEGIN}).)*?)(?={END})',
    re.DOTALL,
)


def read_kept(folder: Path, study: Study) -> list[dict[str, Any]]:
    """The results of a study's rows, in its order; none of other rows.

    Args:
        folder: With ``METHOD/seedN.json``, as ``compare.py --results`` keeps
            them; a missing one holds nothing yet.
        study: Whose rows.

    Raises:
        FGCError: A file is damaged.
    """
    results = []
    for entry in study.entries:
        files = folder.glob(f'{entry.row}/seed*.json')
        found = [read_kept_file(file) for file in files]
        results += sorted(found, key=lambda result: result['seed'])
    return results


def read_kept_file(file: Path) -> dict[str, Any]:
    """The numbers of one run.

    Raises:
        FGCError: The file is missing or damaged.
    """
    try:
        result = json.loads(file.read_text())
        missing = NEEDED - {*result}
    except (OSError, ValueError, TypeError) as error:
        raise _damaged(file, error) from error
    if missing or not isinstance(result, dict):
        raise _damaged(file, f'it lacks {", ".join(sorted(missing))}')
    return result


def _damaged(file: Path, why: object) -> FGCError:
    return FGCError(
        f'{file} is no result ({why}); run compare.py --results again.'
    )


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
    return {
        IMAGE.fullmatch(block.image)['file']: (block.study, block.results)
        for block in blocks
        if block.kind == FIGURE
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
    if kind not in kinds:
        raise FGCError(
            f'a block of results is of the kind {kind!r}, which is '
            f'unknown; choose among {", ".join(kinds)}.'
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


def _table(study: Study, results: Results) -> str:
    """A row per method: seeds, errors, MACs."""
    head = [
        'method', 'seeds', 'error %, last epoch', 'error %, best epoch',
        'pruned %', 'MACs per image',
    ]  # fmt: skip
    lines = [_cells(row) for row in rows_of(results)]
    done = {line[0] for line in lines}
    lines += [
        [entry.row, 'none yet', *[''] * 4]
        for entry in study.entries
        if entry.row not in done
    ]
    return markdown_table(head, lines)


def _cells(row: Row) -> list[str]:
    values = row.values
    return [
        row.method, str(len(row.seeds)), values['error'].text(),
        values['best_error'].text(), values['macs/pruning_ratio'].text(1),
        f'{values["macs/mean"].mean:,.0f}',
    ]  # fmt: skip


def _questions(study: Study, results: Results) -> str:
    found = [answer(question, results) for question in study.questions]
    return answers_markdown(found)


def _costs(study: Study, results: Results) -> str:
    """Hours of training steps times cores per row, and the hardware."""
    head = ['method', 'runs', 'epochs', 'core-hours', 'hardware']
    lines = []
    rows = {row.method: row for row in rows_of(results)}
    for row in (rows[e.row] for e in study.entries if e.row in rows):
        own = [r for r in results if r['method'] == row.method]
        hours = sum(
            r['seconds'] * int(r['environment']['threads per run']) / 3600
            for r in own
        )
        names = dict.fromkeys(
            r['environment'].get('GPU', r['environment']['CPU']) for r in own
        )
        lines.append(
            [
                row.method, str(len(own)), str(row.epochs), f'{hours:.1f}',
                '; '.join(names),
            ]
        )  # fmt: skip
    return markdown_table(head, lines)


Renderer = Callable[[Study, Results], str]
KINDS: dict[str, Renderer] = {
    'table': _table,
    'questions': _questions,
    'costs': _costs,
    'progress': progress,
}
