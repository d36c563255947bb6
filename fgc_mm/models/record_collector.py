"""Gate records of a backbone that another model's code calls."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from torch import nn

from fgc_mm.sites import GateRecord


@dataclass
class RecordCollector:
    """The records of every call of one backbone.

    Attributes:
        backbone: The gated backbone.
        calls: For every call the records of its sites.
    """

    backbone: nn.Module
    calls: list[list[GateRecord]] = field(default_factory=list)


# of the running thread, the innermost last
_ACTIVE: ContextVar[tuple[RecordCollector, ...]] = ContextVar(
    'record_collectors', default=()
)


@contextmanager
def collect_records(backbone: nn.Module) -> Iterator[list[list[GateRecord]]]:
    """Collect the gate records of all calls of a backbone in this thread.

    A detector or segmentor calls ``self.backbone(inputs)`` and expects the
    features alone; this is how the records of that call are obtained without
    a change of its code. Another thread that calls the backbone meanwhile is
    not affected.

    Args:
        backbone: A :class:`fgc_mm.models.GatedBackbone`.

    Yields:
        A list that gets the records of each call.
    """
    collector = RecordCollector(backbone)
    token = _ACTIVE.set((*_ACTIVE.get(), collector))
    try:
        yield collector.calls
    finally:
        _ACTIVE.reset(token)


def collectors_of(backbone: nn.Module) -> list[RecordCollector]:
    """The active collectors of a backbone; empty if nothing is collected."""
    return [c for c in _ACTIVE.get() if c.backbone is backbone]
