"""Sharded banks, whole again on rank 0, for a checkpoint."""

from collections.abc import Callable

import torch
from mmengine.runner import Runner
from torch import Tensor
from torch import distributed as dist

from fgc_mm.errors import FGCError
from fgc_mm.losses import FeatureGateCouplingLoss
from fgc_mm.memory import MemoryBank, ShardedBank

# Rows that travel at a time are at most so many bytes: scratch on a device.
_BYTES = 64 * 2**20


def whole_rows(bank: MemoryBank) -> Tensor | None:
    """All rows of a bank, on rank 0's CPU; None on the other ranks.

    All ranks call it together. They send one after another, piece by piece.
    """
    if not isinstance(bank, ShardedBank) or bank.shard.world_size == 1:
        return bank.rows
    shard, dim = bank.shard, bank.rows.shape[1]
    piece = max(1, _BYTES // (dim * bank.rows.element_size()))
    if shard.rank:
        for part in bank.rows.split(piece):
            dist.send(_bytes(part.contiguous()), 0)
        return None
    whole = torch.empty(shard.length, dim, dtype=bank.rows.dtype, device='cpu')
    whole[: shard.stop] = bank.rows.cpu()
    for rank in range(1, shard.world_size):
        start, stop = shard.bounds(rank)
        for part in whole[start:stop].split(piece):
            received = torch.empty_like(part, device=bank.rows.device)
            dist.recv(_bytes(received), rank)
            part.copy_(received)
    return whole


def _bytes(rows: Tensor) -> Tensor:
    # not every backend knows every dtype
    return rows.view(torch.uint8)


def whole_state(loss: FeatureGateCouplingLoss) -> dict[str, dict]:
    """The state of a loss's banks as one process with whole banks saves it.

    All ranks call it together; only rank 0's result has the rows.
    """
    return {
        site: {
            space: {'rows': whole_rows(getattr(banks, space))}
            for space in ('feature', 'gate')
        }
        for site, banks in loss.banks.items()
    }


class ShardedBankSaver:
    """Gathers sharded banks on rank 0 whenever a checkpoint is saved.

    Only rank 0 runs ``Runner.save_checkpoint`` and the hooks within, and
    alone it cannot have the other ranks' rows. But every rank calls that
    method, and it returns at once on the others. So this object wraps
    it, on this runner only.

    Args:
        runner: Its ``save_checkpoint`` is wrapped.
        collect: Called on all ranks before each save; what it returns is
            ``state`` during the save.
    """

    def __init__(self, runner: Runner, collect: Callable[[], dict]) -> None:
        self._collect = collect
        self._state: dict | None = None
        self._save = runner.save_checkpoint
        runner.save_checkpoint = self._save_with_banks

    def state(self) -> dict:
        """What was collected for the save that goes on.

        Raises:
            FGCError: None goes on.
        """
        if self._state is None:
            raise FGCError(
                'a checkpoint is being saved by rank 0 alone, which holds '
                'only its share of the memory banks; let all ranks call '
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
