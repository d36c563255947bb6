"""Differences between two rows, seed by seed, with their uncertainty."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import mean, stdev
from typing import Any

from scipy import stats

from .markdown import markdown_table

CONFIDENCE = 0.95
INTERVAL = f'{100 * CONFIDENCE:g} % interval'
SAME_MACS = 0.5  # points of the dense network's MACs


@dataclass(frozen=True)
class Question:
    """Two rows whose errors are compared.

    Attributes:
        text: The question, as shown in the report.
        row: The row.
        against: The row that it is compared with.
    """

    text: str
    row: str
    against: str


@dataclass(frozen=True)
class Answer:
    """The paired difference of two rows.

    Attributes:
        question: The question.
        seeds: The seeds that both rows have.
        difference: Mean over the seeds of error(row) - error(against), in
            percentage points; negative if the row is better.
        deviation: Sample standard deviation of the differences; None for
            one seed.
        margin: Half width of the two-sided confidence interval of the
            mean difference (Student's t with seeds - 1 degrees of freedom);
            None for one seed.
        macs: Mean difference of the pruning ratios, in percentage points.
    """

    question: Question
    seeds: tuple[int, ...]
    difference: float | None
    deviation: float | None
    margin: float | None
    macs: float | None

    @property
    def same_macs(self) -> bool:
        """Whether the pruning ratios differ by at most half a point."""
        return self.macs is not None and abs(self.macs) <= SAME_MACS


def answer(question: Question, results: Sequence[Mapping[str, Any]]) -> Answer:
    """The answer from the results of the finished runs."""
    first, second = (
        {r['seed']: r for r in results if r['method'] == name}
        for name in (question.row, question.against)
    )
    seeds = tuple(sorted(first.keys() & second.keys()))
    if not seeds:
        return Answer(question, (), None, None, None, None)
    errors = [first[s]['error'] - second[s]['error'] for s in seeds]
    ratio = 'macs/pruning_ratio'
    macs = mean(first[s][ratio] - second[s][ratio] for s in seeds)
    if len(seeds) == 1:
        return Answer(question, seeds, errors[0], None, None, macs)
    deviation = stdev(errors)
    quantile = stats.t.ppf((1 + CONFIDENCE) / 2, len(seeds) - 1)
    margin = float(quantile) * deviation / sqrt(len(seeds))
    return Answer(question, seeds, mean(errors), deviation, margin, macs)


def answers_markdown(answers: Sequence[Answer]) -> str:
    """One table with a row per question; empty without questions."""
    if not answers:
        return ''
    head = [
        'question', 'seed numbers', 'difference of the errors, points',
        INTERVAL, 'difference of the pruning ratios, points',
    ]  # fmt: skip
    return markdown_table(head, [*map(_line, answers)])


def _line(found: Answer) -> list[str]:
    if found.difference is None:
        return [found.question.text, 'none yet', '', '', '']
    spread = '' if found.deviation is None else f' ± {found.deviation:.2f}'
    interval = (
        'needs two seeds'
        if found.margin is None
        else f'{found.difference - found.margin:+.2f} to '
        f'{found.difference + found.margin:+.2f}'
    )
    macs = f'{found.macs:+.2f}' + ('' if found.same_macs else ' (not equal)')
    return [
        found.question.text, ', '.join(map(str, found.seeds)),
        f'{found.difference:+.2f}{spread}', interval, macs,
    ]  # fmt: skip
