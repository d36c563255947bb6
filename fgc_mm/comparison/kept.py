"""Tables of results that were kept, from their files alone."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..errors import FGCError
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
BLOCK = re.compile(
    rf'({BEGIN} (?P<kind>\S+) of (?P<plan>\S+) in (?P<folder>\S+) -->\n)'
    rf'(?:(?!{BEGIN}).)*?(?={END})',
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
        found = [_load(file) for file in files]
        results += sorted(found, key=lambda result: result['seed'])
    return results


def _load(file: Path) -> dict[str, Any]:
    try:
        result = json.loads(file.read_text())
        missing = NEEDED - {*result}
    except (ValueError, TypeError) as error:
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
    ``<!-- end of results -->``; KIND is table, questions or costs, PLAN and
    FOLDER are relative to ``root``.

    Raises:
        FGCError: A kind, a plan or a result cannot be read, or a block has
            no end.
    """
    found, begun = len(BLOCK.findall(text)), text.count(BEGIN)
    if not found == begun == text.count(END):
        raise FGCError(
            f'{begun} blocks of results begin and {text.count(END)} end, of '
            f'which {found} are whole; write {BEGIN} KIND of PLAN in FOLDER '
            f'--> and {END} around each.'
        )

    def block(match: re.Match[str]) -> str:
        kind = match['kind']
        if kind not in KINDS:
            raise FGCError(
                f'a block of results is of the kind {kind!r}, which is '
                f'unknown; choose among {", ".join(KINDS)}.'
            )
        study = read_study(root / match['plan'])
        results = read_kept(root / match['folder'], study)
        return f'{match[1]}\n{KINDS[kind](study, results)}\n'

    return BLOCK.sub(block, text)


def _table(study: Study, results: Sequence[dict[str, Any]]) -> str:
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


def _questions(study: Study, results: Sequence[dict[str, Any]]) -> str:
    found = [answer(question, results) for question in study.questions]
    return answers_markdown(found)


def _costs(study: Study, results: Sequence[dict[str, Any]]) -> str:
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


Renderer = Callable[[Study, Sequence[dict[str, Any]]], str]
KINDS: dict[str, Renderer] = {
    'table': _table,
    'questions': _questions,
    'costs': _costs,
}
