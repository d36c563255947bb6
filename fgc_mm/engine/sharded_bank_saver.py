"""Gathers sharded memory banks on rank 0, for a checkpoint."""

from collections.abc import Callable

import torch
from mmengine.runner import Runner
from torch import Tensor
from torch import distributed as dist

from fgc_mm.errors import FGCError
from fgc_mm.losses import FeatureGateCouplingLoss
from fgc_mm.memory import MemoryBank

# bytes of rows that are sent at a time: temporary memory on a device
_CHUNK_BYTES = 64 * 2**20


def all_rows(bank: MemoryBank) -> Tensor | None:
    """All rows of a bank, on rank 0's CPU; None on the other ranks.

    All ranks call it together. They send one after another, in chunks.
    """
    shard, dim = bank.shard, bank.rows.shape[1]
    if shard is None:
        return bank.rows
    chunk = max(1, _CHUNK_BYTES // (dim * bank.rows.element_size()))
    if shard.rank:
        for part in bank.rows.split(chunk):
            dist.send(_bytes(part.contiguous()), 0)
        return None
    rows = torch.empty(shard.length, dim, dtype=bank.rows.dtype, device='cpu')
    rows[: shard.stop] = bank.rows.cpu()
    for rank in range(1, shard.world_size):
        start, stop = shard.bounds(rank)
        for part in rows[start:stop].split(chunk):
            received = torch.empty_like(part, device=bank.rows.device)
            dist.recv(_bytes(received), rank)
            part.copy_(received)
    return rows


def _bytes(rows: Tensor) -> Tensor:
    # not every backend supports every dtype
    return rows.view(torch.uint8)


def banks_state(loss: FeatureGateCouplingLoss) -> dict[str, dict]:
    """The state of a loss's banks, as a process with unsharded banks saves it.

    All ranks call it together; only rank 0's result contains the rows.
    """
    return {
        site: {
            kind: {'rows': all_rows(bank)}
            for kind, bank in banks._asdict().items()
        }
        for site, banks in loss.banks.items()
    }


class ShardedBankSaver:
    """Gathers sharded banks on rank 0 whenever a checkpoint is saved.

    Only rank 0 executes the body of ``Runner.save_checkpoint`` and its hooks,
    and it does not hold the rows of the other ranks. But every rank calls
    that method, which returns immediately on the others. So this class wraps
    the method of one runner, and gathers the rows before each call.

    Args:
        runner: Its ``save_checkpoint`` is wrapped.
        collect: Called on all ranks before each save; :meth:`state` returns
            its result during the save.
    """

    def __init__(self, runner: Runner, collect: Callable[[], dict]) -> None:
        self._collect = collect
        self._state: dict | None = None
        self._save = runner.save_checkpoint
        runner.save_checkpoint = self._save_with_banks

    def state(self) -> dict:
        """The state that was collected for the current save.

        Raises:
            FGCError: No save is in progress.
        """
        if self._state is None:
            raise FGCError(
                'a checkpoint is being saved by rank 0 alone, which holds '
                'only a part of the sharded memory banks; let all ranks call '
                'runner.save_checkpoint, or set save_banks=False in '
                'FGCMemoryBankHook.'
            )
        return self._state

    def _save_with_banks(self, *args: object, **kwargs: object) -> None:
        self._state = self._collect()
        try:
            self._save(*args, **kwargs)
        finally:
            self._state = None
