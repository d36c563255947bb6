"""The part of a bank's rows on one process, and exchange between processes.

All processes search at the same time. Queries are gathered by all of them;
each process answers all queries from its own rows, and the results are sent
back to the process of the query. The collectives are torch.distributed's, so
gloo and NCCL both work.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch import distributed as dist

from fgc_mm.errors import FGCError


@dataclass(frozen=True)
class Shard:
    """Rows ``start`` to ``stop - 1`` of a bank of ``length`` rows.

    Attributes:
        length: D, number of rows of all processes together.
        rank: This process, from 0.
        world_size: Number of processes that share the bank.
    """

    length: int
    rank: int
    world_size: int

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world_size <= self.length:
            raise FGCError(
                f'rank {self.rank} of {self.world_size} cannot hold a part '
                f'of {self.length} rows, but every process needs at least '
                'one: start fewer processes, or use shard=False'
            )

    @classmethod
    def of_this_rank(cls, length: int) -> 'Shard':
        """The part of this process in the default process group."""
        if not dist.is_initialized():
            return cls(length, 0, 1)
        return cls(length, dist.get_rank(), dist.get_world_size())

    @property
    def start(self) -> int:
        """The first row on this process."""
        return self.bounds(self.rank)[0]

    @property
    def stop(self) -> int:
        """The first row after those on this process."""
        return self.bounds(self.rank)[1]

    def bounds(self, rank: int) -> tuple[int, int]:
        """First row of a rank, and the first after its rows."""
        start, stop = self.length * rank, self.length * (rank + 1)
        return start // self.world_size, stop // self.world_size

    def return_results(self, results: Tensor, counts: Sequence[int]) -> Tensor:
        """Send every process its results, and receive this one's from all.

        Args:
            results: (sum of counts, X), results of this process for all.
            counts: Number of queries of each process, in rank order.

        Returns:
            (world_size, n, X), results of all processes for this one.
        """
        own = counts[self.rank]
        received = results.new_empty(self.world_size * own, results.shape[1])
        dist.all_to_all_single(
            received,
            results.contiguous(),
            [own] * self.world_size,
            list(counts),
        )
        return received.view(self.world_size, own, -1)
