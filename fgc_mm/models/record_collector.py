"""Gate records of a backbone that another model's code calls."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import nn

from fgc_mm.sites import GateRecord

Calls = list[list[GateRecord]]  # for every call the records of its sites
# of the running thread, the innermost last
_ACTIVE: ContextVar[tuple[tuple[nn.Module, Calls], ...]] = ContextVar(
    'record_collectors', default=()
)


@contextmanager
def collect_records(backbone: nn.Module) -> Iterator[Calls]:
    """Collect the gate records of all calls of a backbone in this thread.

    A detector or segmentor calls ``self.backbone(inputs)`` and expects only
    features, so the records cannot be returned. The list gets the records of
    each call; those of other threads are not collected.
    """
    calls: Calls = []
    token = _ACTIVE.set((*_ACTIVE.get(), (backbone, calls)))
    try:
        yield calls
    finally:
        _ACTIVE.reset(token)


def collectors_of(backbone: nn.Module) -> list[Calls]:
    """The lists that get the records of a backbone's calls at present."""
    return [calls for owner, calls in _ACTIVE.get() if owner is backbone]
