"""A memory bank whose rows are sharded over all processes."""

from typing import Any

import torch
from torch import Tensor

from fgc_mm.memory.bank import MemoryBank
from fgc_mm.memory.shard import Shard
from fgc_mm.memory.sharded_contrast import sharded_neighbor_contrast
from fgc_mm.memory.sharded_neighbors import sharded_nearest_neighbors


class ShardedBank(MemoryBank):
    """The rows of a :class:`MemoryBank` on one process.

    It gives the same results as a whole bank, and is restored from the state
    of a whole bank. :meth:`nearest` and :meth:`contrast` are collective: all
    processes call them together, each with its own queries.

    Args:
        shard: The rows on this process.
        dim: C, the number of channels.
        **options: As in :class:`MemoryBank`; a ``generator`` must have the
            same seed on all processes.
    """

    def __init__(self, shard: Shard, dim: int, **options: Any) -> None:
        self.shard = shard
        super().__init__(shard.length, dim, **options)

    @property
    def local_range(self) -> range:
        """The rows on this process."""
        return range(self.shard.start, self.shard.stop)

    def nearest(self, queries: Tensor, k: int, exclude: Tensor) -> Tensor:
        """As for a whole bank; see :func:`sharded_nearest_neighbors`."""
        return sharded_nearest_neighbors(
            queries, self.rows, self.shard, k, exclude
        )

    def contrast(
        self,
        queries: Tensor,
        positives: Tensor,
        temperature: float,
        form: str,
        eps: float,
    ) -> Tensor:
        """As for a whole bank; see :func:`sharded_neighbor_contrast`."""
        return sharded_neighbor_contrast(
            queries, self.rows, self.shard, positives, temperature, form, eps
        )

    def local_rows(
        self, ordered: Tensor, source: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """As for a whole bank; indices of rows elsewhere are replaced.

        They are replaced by a row of the batch that is here. If none is here,
        an arbitrary row is returned, which does not change.
        """
        local_range = self.local_range
        here = (ordered >= local_range.start) & (ordered < local_range.stop)
        position = torch.arange(len(ordered), device=ordered.device)
        position = torch.where(here, position, here.int().argmax())
        local = ordered.index_select(0, position) - local_range.start
        return (
            local.clamp(0, len(local_range) - 1),
            source.index_select(0, position),
            ~here.index_select(0, position).unsqueeze(1),
        )
