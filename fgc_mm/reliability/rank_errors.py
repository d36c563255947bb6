"""Raises an error of one rank on all ranks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.dist import all_gather_object

from fgc_mm.errors import FGCError


@contextmanager
def raise_on_all_ranks() -> Iterator[None]:
    """Raises an exception of one rank on all ranks, at the end of a block.

    If a rank stopped alone, the others would wait in their next collective
    until the timeout. Every rank must enter the block, and in the block no
    collective may follow a statement that can fail on a single rank.

    Raises:
        FGCError: Another rank has failed; the message of the first one.
    """
    own: Exception | None = None
    try:
        yield
    except Exception as error:  # sent to the others, then raised again
        own = error
    messages = all_gather_object(None if own is None else str(own))
    if own is not None:
        raise own
    for rank, message in enumerate(messages):
        if message is not None:
            raise FGCError(f'rank {rank} cannot start: {message}')
