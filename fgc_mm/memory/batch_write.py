"""Writing one batch to several banks together."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fgc_mm.async_read import AsyncRead

if TYPE_CHECKING:
    from fgc_mm.memory.bank import MemoryBank


class BatchWrite:
    """A batch to write to several banks: all its rows, or none.

    On a CPU call :meth:`check`, which raises errors, and then :meth:`write`.
    On an accelerator, to avoid synchronisation, call :meth:`write` first,
    which does not change the banks if a value is not finite, and one step
    later :meth:`check`, which raises the error.

    Args:
        banks: All with the same rows, dtype, momentum and normalisation.
        indices: (N,) int64 row indices, within the banks.
        values: (N, sum of the banks' C), the banks' values concatenated.
    """

    def __init__(
        self, banks: Sequence[MemoryBank], indices: Tensor, values: Tensor
    ) -> None:
        self.banks, self.indices, self.values = banks, indices, values
        dtype = banks[0].rows.dtype
        # false for inf and nan
        largest = values.to(dtype).abs().amax()
        self.broken = ~(largest <= torch.finfo(dtype).max)
        self._late = AsyncRead(self.broken)

    def check(self) -> None:
        """Raise FGCError for a value that a bank cannot store."""
        if self._late.get():
            for bank, values in zip(self.banks, self._parts(), strict=True):
                bank.check(self.indices, values)

    def write(self) -> None:
        """Write the rows if all values are finite."""
        write_rows(self.banks, self.indices, self._parts(), self.broken)

    def _parts(self) -> tuple[Tensor, ...]:
        return self.values.split([b.rows.shape[1] for b in self.banks], 1)


@torch.no_grad()
def write_rows(
    banks: Sequence[MemoryBank],
    indices: Tensor,
    values: Sequence[Tensor],
    broken: Tensor | None = None,
) -> None:
    """Update the same rows of several banks with new values.

    No operation has an output size that depends on values, so nothing
    synchronises with the device. If an index occurs twice, the values of its
    first occurrence are written both times.

    Args:
        banks: As in :class:`BatchWrite`.
        indices: (N,) int64.
        values: (N, C) for each bank.
        broken: () bool; if true no row is changed.
    """
    if not len(indices):
        return
    ordered, position = indices.sort(stable=True)
    source = position.index_select(0, torch.searchsorted(ordered, ordered))
    local, source, elsewhere = banks[0].local_rows(ordered, source)
    unchanged = [x for x in (elsewhere, broken) if x is not None]
    pairs = list(zip(banks, values, strict=True))
    pairs.sort(key=lambda pair: pair[0].rows.shape[1])
    for _, group in groupby(pairs, lambda pair: pair[0].rows.shape[1]):
        _write_stacked(list(group), local, source, unchanged)


def _write_stacked(
    pairs: Sequence[tuple[MemoryBank, Tensor]],
    local: Tensor,
    source: Tensor,
    unchanged: Sequence[Tensor],
) -> None:
    """Write banks with the same number of channels, stacked."""
    # (banks, N, C)
    old = torch.stack([b.rows.index_select(0, local) for b, _ in pairs])
    new = torch.stack([values for _, values in pairs]).index_select(1, source)
    rows = pairs[0][0].blend(old, new)
    for condition in unchanged:
        rows = torch.where(condition, old, rows)
    for (bank, _), part in zip(pairs, rows.unbind(), strict=True):
        bank.rows.index_copy_(0, local, part)
