"""Tables of stored results, as Markdown."""

from ..markdown import markdown_table
from ..questions import answer, answers_markdown
from ..study import Study
from ..table import Results, hardware, rows_of, summary


def results_table(study: Study, results: Results) -> str:
    """A row per method: seeds, errors, MACs."""
    head = [
        'method', 'seeds', 'error %, last epoch', 'error %, best epoch',
        'pruned %', 'MACs per image',
    ]  # fmt: skip
    lines = [summary(row) for row in rows_of(results)]
    done = {line[0] for line in lines}
    lines += [
        [entry.row, 'none yet', *[''] * 4]
        for entry in study.entries
        if entry.row not in done
    ]
    return markdown_table(head, lines)


def questions_table(study: Study, results: Results) -> str:
    """A row per question: the difference and its interval."""
    found = [answer(question, results) for question in study.questions]
    return answers_markdown(found)


def costs_table(study: Study, results: Results) -> str:
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
        lines.append(
            [
                row.method, str(len(own)), str(row.epochs), f'{hours:.1f}',
                hardware(own),
            ]
        )  # fmt: skip
    return markdown_table(head, lines)
