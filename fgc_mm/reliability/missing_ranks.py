"""Finds the processes that did not join a collective."""

from __future__ import annotations

import re
import signal
import threading
import time

from torch import distributed as dist

# messages of gloo, NCCL and the store if a process is late or has exited
_LOST = re.compile(
    r'tim(ed|e) ?out|connection (was )?(closed|reset|refused)|broken pipe',
    re.IGNORECASE,
)
_ALIVE = 'fgc_mm/alive/{}'
ANSWER_SECONDS = 10.0  # the processes may time out at different moments


def find_missing_ranks(
    error: BaseException, seconds: float = ANSWER_SECONDS
) -> list[int] | None:
    """The ranks that do not answer after a collective has failed.

    Each process whose collective fails writes its rank into the store that
    all processes share (that of torchrun, or a thread of rank 0), and waits
    ``seconds`` for the others to do so.

    Returns:
        The ranks, in order; None if the error has another cause.
    """
    if not isinstance(error, RuntimeError) or not _LOST.search(str(error)):
        return None
    if not dist.is_initialized() or 'DataLoader' in str(error):
        return None
    # if a process has exited, the launcher reports it and ends this one
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    answers: set[int] = set()
    # in a thread, since calls do not return if the store's process hangs
    thread = threading.Thread(
        target=_collect, args=(answers, seconds), daemon=True
    )
    thread.start()
    thread.join(seconds + 2)
    ranks = range(dist.get_world_size())
    return [r for r in ranks if r not in {*answers, dist.get_rank()}]


def _collect(answers: set[int], seconds: float) -> None:
    try:
        store = dist.distributed_c10d._get_default_store()
        store.set(_ALIVE.format(dist.get_rank()), '')
        end = time.monotonic() + seconds
        waiting = set(range(dist.get_world_size()))
        while waiting and time.monotonic() < end:
            answers |= {r for r in waiting if store.check([_ALIVE.format(r)])}
            waiting -= answers
            time.sleep(0.2)
    except RuntimeError:  # rank 0, which hosts the store, has exited
        return


def describe_missing(ranks: list[int]) -> str:
    """The error message for the ranks of :func:`find_missing_ranks`."""
    if not ranks:
        return (
            'a collective has failed although every rank has answered since: '
            'one joined it later than env_cfg.dist_cfg.timeout (seconds) '
            'allows, or the network failed; continue with --resume.'
        )
    names = ' and '.join(f'rank {rank}' for rank in ranks)
    verb = 'has' if len(ranks) == 1 else 'have'
    return (
        f'{names} {verb} not joined a collective within '
        'env_cfg.dist_cfg.timeout (hanging, or exited), so the job ends; see '
        'the last output of that process, and continue with --resume.'
    )
