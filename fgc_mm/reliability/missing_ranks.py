"""Which processes did not come to a collective."""

from __future__ import annotations

import re
import signal
import threading
import time

from torch import distributed as dist

# What gloo, NCCL and the store say when a sibling is late, or gone.
_LOST = re.compile(
    r'tim(ed|e) ?out|connection (was )?(closed|reset|refused)|broken pipe',
    re.IGNORECASE,
)
_HERE = 'fgc_mm/here/{}'
SECONDS = 10.0  # clocks of siblings that all wait for the same one differ


def find_missing_ranks(
    error: BaseException, seconds: float = SECONDS
) -> list[int] | None:
    """The ranks that do not answer, after a collective has failed.

    Whoever's collective fails says so in the store that all processes share
    (it is torchrun's, or a thread of rank 0), and waits for the others.

    Args:
        error: What the collective has raised.
        seconds: How long to wait for the others' answers.

    Returns:
        Their ranks, in order; None where the error is another one.
    """
    if not isinstance(error, RuntimeError) or not _LOST.search(str(error)):
        return None
    if not dist.is_initialized() or 'DataLoader' in str(error):
        return None
    # a launcher that knows of a dead one ends us, and then it is to speak
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    answers: set[int] = set()
    # a store whose process hangs would let us hang too
    thread = threading.Thread(
        target=_call, args=(answers, seconds), daemon=True
    )
    thread.start()
    thread.join(seconds + 2)
    ranks = range(dist.get_world_size())
    return [r for r in ranks if r not in {*answers, dist.get_rank()}]


def say_here() -> None:
    """Answers a roll call: this process is not the one that is missing."""
    store = dist.distributed_c10d._get_default_store()
    store.set(_HERE.format(dist.get_rank()), '')


def _call(answers: set[int], seconds: float) -> None:
    try:
        say_here()
        store = dist.distributed_c10d._get_default_store()
        end = time.monotonic() + seconds
        waiting = set(range(dist.get_world_size()))
        while waiting and time.monotonic() < end:
            answers |= {r for r in waiting if store.check([_HERE.format(r)])}
            waiting -= answers
            time.sleep(0.2)
    except RuntimeError:  # the store has gone: with rank 0, where it lives
        return


def describe_missing(ranks: list[int]) -> str:
    """One sentence about the ranks of :func:`find_missing_ranks`."""
    if not ranks:
        return (
            'a collective has failed though every rank has answered since: '
            'one came later than env_cfg.dist_cfg.timeout (seconds) allows, '
            'or the network broke; go on with --resume.'
        )
    names = ' and '.join(f'rank {rank}' for rank in ranks)
    verb = 'has' if len(ranks) == 1 else 'have'
    return (
        f'{names} {verb} not come to where the others wait (hanging, or '
        'gone): env_cfg.dist_cfg.timeout is over, so the job ends; see what '
        'that process did last, and go on with --resume.'
    )
