"""Tables of stored results, as Markdown."""

from ..markdown import markdown_table
from ..questions import answer, answers_markdown
from ..study import Study
from ..table import Results, hardware, rows_of, summary
from .labels import row_labels
from .sentences import not_trained


def results_table(study: Study, results: Results) -> str:
    """A row per trained method, and the names of the others."""
    head = [
        'method', 'seeds', 'error %, last epoch', 'error %, best epoch',
        'pruned %', 'MACs per image',
    ]  # fmt: skip
    labels = row_labels(study, results)
    lines = [[labels[row.method], *summary(row)] for row in rows_of(results)]
    table = markdown_table(head, lines) if lines else ''
    missing = not_trained(study, results)
    return '\n'.join(filter(None, [table, missing and f'{missing}\n']))


def questions_table(study: Study, results: Results) -> str:
    """A row per question: the difference and its interval."""
    found = [answer(question, results) for question in study.questions]
    return answers_markdown(found)


def costs_table(study: Study, results: Results) -> str:
    """Hours of training steps times cores per row, and the hardware."""
    head = ['method', 'runs', 'epochs', 'core-hours', 'hardware', 'row']
    labels, lines = row_labels(study, results), []
    rows = {row.method: row for row in rows_of(results)}
    for row in (rows[e.row] for e in study.entries if e.row in rows):
        hours = sum(
            r['seconds'] * int(r['environment']['threads per run']) / 3600
            for r in row.results
        )
        lines.append(
            [
                labels[row.method], str(len(row.seeds)), str(row.epochs),
                f'{hours:.1f}', hardware(row), f'`{row.method}`',
            ]
        )  # fmt: skip
    return markdown_table(head, lines)
