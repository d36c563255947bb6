"""Sentences about stored results."""

from collections import Counter
from collections.abc import Iterable

from ..questions import INTERVAL, Answer, answer
from ..study import Study
from ..table import Results

MIN_SEEDS = 3  # of the answers in blocks of the kind answers


def progress(study: Study, results: Results) -> str:
    """How many seeds every row has, and the answers to the questions."""
    wanted = {e.row: e.seeds or study.seeds for e in study.entries}
    done = Counter(
        result['method']
        for result in results
        if result['seed'] in wanted.get(result['method'], ())
    )
    counts = ', '.join(
        f'{row} {done[row]} of {len(seeds)}' for row, seeds in wanted.items()
    )
    missing = sum(map(len, wanted.values())) - done.total()
    first = (
        f'Seeds trained so far: {counts}; runs missing: {missing}.'
        if missing
        else f'All seeds are trained: {counts}.'
    )
    asked, found = len(study.questions), _answered(study, results)
    if len(found) < asked:
        first += (
            f' Questions without an answer: {asked - len(found)} of {asked}; '
            'an answer needs two seeds of both rows.'
        )
    if not found:
        return f'{first}\n'
    return f'{first}\n\n{_items(found)}'


def answers(study: Study, results: Results) -> str:
    """The answers with at least ``MIN_SEEDS`` seeds."""
    found = _answered(study, results)
    items = _items(one for one in found if len(one.seeds) >= MIN_SEEDS)
    return items or 'None yet.\n'


def all_answers(study: Study, results: Results) -> str:
    """The answers, which need two seeds of both rows; empty without any."""
    return _items(_answered(study, results))


def _items(found: Iterable[Answer]) -> str:
    return ''.join(f'- {_sentence(one)}\n' for one in found)


def _answered(study: Study, results: Results) -> list[Answer]:
    found = [answer(question, results) for question in study.questions]
    return [one for one in found if one.margin is not None]


def _sentence(found: Answer) -> str:
    assert found.difference is not None and found.margin is not None
    low = found.difference - found.margin
    high = found.difference + found.margin
    macs = '' if found.same_macs else ', at unequal MACs'
    if found.moved:
        macs += f', {found.moved} at the MACs of the other by the threshold'
    return (
        f'{found.question.text}: {_verdict(found, low, high)}, '
        f'{found.difference:+.2f} points of error ({INTERVAL} {low:+.2f} '
        f'to {high:+.2f}, {len(found.seeds)} seeds{macs}).'
    )


def _verdict(found: Answer, low: float, high: float) -> str:
    row, against = found.question.row, found.question.against
    if high < 0:
        return f'{row} is better than {against}'
    if low > 0:
        return f'{row} is worse than {against}'
    return f'no significant difference between {row} and {against}'


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
    left_out = [e.row for e in study.entries if e.row not in done]
    return f'Not trained yet: {", ".join(left_out)}.' if left_out else ''
