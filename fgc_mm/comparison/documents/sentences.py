"""Sentences about stored results."""

from collections import Counter
from collections.abc import Mapping

from ..questions import INTERVAL, Answer, answer
from ..study import Study
from ..table import Results
from .labels import row_labels

MIN_SEEDS = 3  # of the answers in blocks of the kind answers


def progress(study: Study, results: Results) -> str:
    """How many seeds every row has, and the answers to the questions."""
    wanted = {e.row: e.seeds or study.seeds for e in study.entries}
    done = Counter(
        result['method']
        for result in results
        if result['seed'] in wanted.get(result['method'], ())
    )
    labels = row_labels(study, results)
    counts = ', '.join(
        f'{labels[row]} {done[row]} of {len(seeds)}'
        for row, seeds in wanted.items()
    )
    missing = sum(map(len, wanted.values())) - done.total()
    first = (
        f'Seeds trained so far: {counts}; runs missing: {missing}.'
        if missing
        else f'All seeds are trained: {counts}.'
    )
    found = _answered(study, results)
    unanswered = len(study.questions) - len(found)
    if unanswered:
        first += (
            f' Questions without an answer: {unanswered} of '
            f'{len(study.questions)}; an answer needs two seeds of both rows.'
        )
    return f'{first}\n' + ('\n' if found else '') + ''.join(found)


def answers(study: Study, results: Results) -> str:
    """The answers with at least ``MIN_SEEDS`` seeds."""
    return ''.join(_answered(study, results, MIN_SEEDS)) or 'None yet.\n'


def all_answers(study: Study, results: Results) -> str:
    """The answers, which need two seeds of both rows; empty without any."""
    return ''.join(_answered(study, results))


def _answered(study: Study, results: Results, seeds: int = 2) -> list[str]:
    """A line per question for which both rows have so many seeds."""
    labels = row_labels(study, results)
    found = [answer(question, results) for question in study.questions]
    return [
        f'- {_sentence(one, labels)}\n'
        for one in found
        if len(one.seeds) >= seeds
    ]


def _sentence(found: Answer, labels: Mapping[str, str]) -> str:
    assert found.difference is not None and found.margin is not None
    low = found.difference - found.margin
    high = found.difference + found.margin
    macs = '' if found.same_macs else ', at unequal MACs'
    if found.moved:
        macs += f', {found.moved} at the MACs of the other by the threshold'
    row, against = labels[found.question.row], labels[found.question.against]
    verdict = f'no significant difference between {row} and {against}'
    if not low <= 0 <= high:
        better = 'better' if high < 0 else 'worse'
        verdict = f'{row} is {better} than {against}'
    return (
        f'{found.question.text}: {verdict}, '
        f'{found.difference:+.2f} points of error ({INTERVAL} {low:+.2f} '
        f'to {high:+.2f}, {len(found.seeds)} seeds{macs}).'
    )


def caption(study: Study, results: Results) -> str:
    """The caption of a figure of :func:`trade_off_plot`."""
    swept = any(result.get('threshold_sweep') for result in results)
    lines = (
        'Each network is trained once per seed (large marker); where the '
        'gates have a threshold, it is also tested at others (line). '
        if swept
        else ''
    )
    sentences = [
        f'{study.title}: error over MACs.',
        f'{lines}The number of seeds is in the legend.',
        not_trained(study, results),
    ]
    return ' '.join(filter(None, sentences)) + '\n'


def not_trained(study: Study, results: Results) -> str:
    """Which rows have no result; empty if all have one."""
    done = {str(result['method']) for result in results}
    labels = row_labels(study, results)
    left_out = [label for row, label in labels.items() if row not in done]
    return f'Not trained yet: {", ".join(left_out)}.' if left_out else ''
