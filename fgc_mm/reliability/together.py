"""A part of a run that succeeds on every rank, or on none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.dist import all_gather_object

from fgc_mm.errors import FGCError


@contextmanager
def together() -> Iterator[None]:
    """Raises on all ranks what one of them raises inside.

    A rank that stopped alone would leave the others in their next
    collective until the timeout. Every rank must enter, and inside there
    must be no collective before the place where a single rank can fail.

    Raises:
        FGCError: Another rank has failed; the first one's message.
    """
    own: Exception | None = None
    try:
        yield
    except Exception as error:  # told to the others, then raised again
        own = error
    said = all_gather_object(None if own is None else str(own))
    if own is not None:
        raise own
    for rank, message in enumerate(said):
        if message is not None:
            raise FGCError(f'rank {rank} cannot start: {message}')
