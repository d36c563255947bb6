"""Differences between two rows, seed by seed, with their uncertainty."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from statistics import mean, stdev
from typing import Any

from scipy import stats

from .markdown import markdown_table
from .results import COST, RATIO, SWEEP

CONFIDENCE = 0.95
INTERVAL = f'{100 * CONFIDENCE:g} % interval'
MACS, DENSE = COST
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
        same_macs: Whether those of every seed differ by at most half a point.
        moved: Seeds whose row is taken at another threshold of its gates, at
            the pruning ratio of the other row.
    """

    question: Question
    seeds: tuple[int, ...]
    difference: float | None
    deviation: float | None
    margin: float | None
    macs: float | None
    same_macs: bool = False
    moved: int = 0


def answer(question: Question, results: Sequence[Mapping[str, Any]]) -> Answer:
    """The answer from the results of the finished runs.

    Where the pruning ratios of a seed are more than half a point apart and
    the row was tested at other thresholds of its gates as well, its error at
    the pruning ratio of the other row is interpolated between the two
    nearest ones. The error of a network of as many MACs as the row's dense
    one is compared as it is: it is not meant at equal MACs.
    """
    first, second = (
        {r['seed']: r for r in results if r['method'] == name}
        for name in (question.row, question.against)
    )
    seeds = tuple(sorted(first.keys() & second.keys()))
    if not seeds:
        return Answer(question, (), None, None, None, None)
    errors, gaps, moved = [], [], 0
    for seed in seeds:
        result, other = first[seed], second[seed]
        error, ratio = result['error'], _ratio_of(other, result)
        gap = result[RATIO] - ratio
        at_other = _error_at(result, ratio) if ratio else None
        if abs(gap) > SAME_MACS and at_other is not None:
            error, gap, moved = at_other, 0.0, moved + 1
        errors.append(error - other['error'])
        gaps.append(gap)
    macs = mean(gaps)
    same = all(abs(gap) <= SAME_MACS for gap in gaps)
    deviation = margin = None
    if len(seeds) > 1:
        deviation = stdev(errors)
        quantile = stats.t.ppf((1 + CONFIDENCE) / 2, len(seeds) - 1)
        margin = float(quantile) * deviation / sqrt(len(seeds))
    return Answer(
        question, seeds, mean(errors), deviation, margin, macs, same, moved
    )


def _ratio_of(other: Mapping[str, Any], result: Mapping[str, Any]) -> float:
    """The pruning ratio of a network relative to the other's dense one.

    So a narrow dense network, of which nothing is pruned, has one, too.
    """
    dense = result.get(DENSE)
    return 100 * (1 - other[MACS] / dense) if dense else other[RATIO]


def _error_at(result: Mapping[str, Any], ratio: float) -> float | None:
    """The error at another pruning ratio; None outside the tested ones."""
    points = sorted(
        (point['pruning_ratio'], 100 - point['accuracy'])
        for point in result.get(SWEEP) or ()
    )
    for (low, error), (high, next_error) in pairwise(points):
        if low <= ratio <= high and low < high:
            part = (ratio - low) / (high - low)
            return error + part * (next_error - error)
    return None


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
    if found.moved:
        macs += f' ({found.moved} of {len(found.seeds)} by the threshold)'
    return [
        found.question.text, ', '.join(map(str, found.seeds)),
        f'{found.difference:+.2f}{spread}', interval, macs,
    ]  # fmt: skip
