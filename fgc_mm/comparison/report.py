"""The files of a comparison: table, runs, plot."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from fgc_mm.reliability.atomic_file import write_atomically

from ..figure_style import FORMATS
from .documents.tables import questions_table
from .documents.trade_off_plot import trade_off_plot
from .run import Run
from .study import Study
from .sweep_plot import sweep_plot
from .table import (
    Results,
    markdown,
    published_for,
    rows_of,
    runs_csv,
    table_csv,
)

NOTES = """\
Error: 100 - top-1 accuracy on the test images; mean ± sample standard
deviation over the seeds. The result is the error of the last epoch. The error
of the best epoch is the lowest validation error during training, as in most
published results; if validation and test images differ, it can be above that
of the last epoch. Data: numbers of images for training, validation and test.
Pruned, honest: 1 - MACs / dense MACs, with gates and classifier counted; the
other countings are for comparison with published numbers, which were measured
on other data or with other schedules. MACs: mean per test image. In the plot
dense networks are black and static ones grey; the line of a gated one is its
test at several thresholds. Training time: median step of each epoch times the
number of steps, per run, without validation.
"""


QUESTION_NOTES = """\
Difference: error of the first row minus error of the second row, last epoch,
mean ± sample standard deviation over the seeds that both have; negative is
better. The interval is that of the mean difference (paired, Student's t).
Pruning ratios, of the first row's dense network, within half a point count as
equal. Where they are further apart and the first row was tested at several
thresholds of its gates, its error at the ratio of the second one is
interpolated between them ("by the threshold"), unless the second one is a
dense network of as many MACs.
"""


def write_report(
    folder: Path,
    runs: Sequence[Run],
    results: Results,
    published: Sequence[dict[str, str]],
    command: Sequence[str],
    study: Study,
) -> None:
    """Writes compare.md, .csv, .png and .svg and runs.csv, each atomically.

    For a plan with an axis, sweep.png and .svg are written too.

    Args:
        folder: Output folder.
        runs: All runs, done or not.
        results: Of the runs that are done.
        published: As :func:`read_published` returns them.
        command: The command line of the comparison.
        study: Has the title, the questions and the axis.
    """
    rows = rows_of(results)
    # a row's name may not contain backbone and data set; its config's does
    configs = [run.method.config.stem for run in runs]
    theirs = published_for(
        published,
        [*configs, *(row.method for row in rows)],
        study.published_dataset,
    )
    text = '\n'.join(
        [f'# {study.title}\n', markdown(rows, theirs), NOTES]
        + [_answers(study, results)]
        + [_missing(runs), _commands(runs, results, command)]
        + [_environments(results)]
    )
    files = {
        'compare.md': text.encode(),
        'compare.csv': table_csv(rows, theirs).encode(),
        'runs.csv': runs_csv(results).encode(),
    }
    names = {row.method: row.method for row in rows}
    for kind in FORMATS:
        figure = trade_off_plot(study, results, kind, labels=names)
        files[f'compare.{kind}'] = figure
        if study.axis is not None:
            files[f'sweep.{kind}'] = sweep_plot(study.axis, rows, kind)
    for name, content in files.items():
        write_atomically(content, folder / name)


def _answers(study: Study, results: Results) -> str:
    if not study.questions:
        return ''
    table = questions_table(study, results)
    return '\n'.join(['## Questions\n', table, QUESTION_NOTES])


def _missing(runs: Sequence[Run]) -> str:
    missing = [run for run in runs if run.state != 'done']
    if not missing:
        return ''
    lines = [f'- {run.name}: {run.state}' for run in missing]
    return '\n'.join(['## Not in the table yet\n', *lines, ''])


def _commands(
    runs: Sequence[Run], results: Results, command: Sequence[str]
) -> str:
    stored = {(r['method'], r['seed']): r.get('commands', []) for r in results}
    lines = ['## Commands\n', '```', shlex.join(command), '```\n']
    lines.append('which ran, for the first seed:\n\n```')
    for run in runs:
        if run.seed == runs[0].seed:
            name = run.method.name, run.seed
            lines += run.logged_commands() or stored.get(name, [])
    return '\n'.join([*lines, '```\n'])


def _environments(results: Results) -> str:
    found = dict.fromkeys(
        ', '.join(f'{name} {value}' for name, value in pairs)
        for pairs in (result['environment'].items() for result in results)
    )
    lines = [f'{number}. {text}' for number, text in enumerate(found, 1)]
    return '\n'.join(['## Ran on\n', *lines, ''])
