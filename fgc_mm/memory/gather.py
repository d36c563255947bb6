"""Rows of all processes, in rank order."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch import distributed as dist


def gather_tables(tables: Sequence[Tensor]) -> list[Tensor]:
    """Concatenate every process's rows of several tables.

    Processes may have different numbers of rows, but all tables of a process
    have the same number; the numbers are exchanged once.

    Args:
        tables: (N, ...) each; N may differ between processes.

    Returns:
        For each table (sum of N, ...), the same on every process.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return list(tables)
    counts = row_counts(tables[0])
    return [gather_rows(rows, counts) for rows in tables]


def row_counts(own: Tensor) -> list[int]:
    """Number of rows of each process."""
    # filled there, since a copy from the host would block
    count = torch.full((1,), len(own), device=own.device)
    counts = [torch.empty_like(count) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, count)
    return torch.cat(counts).tolist()


def gather_rows(own: Tensor, counts: Sequence[int]) -> Tensor:
    """The rows of all processes, with the number of rows of each."""
    padded = own.new_zeros(max(counts), *own.shape[1:])
    padded[: len(own)] = own
    parts = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(parts, padded)
    return torch.cat([p[:n] for p, n in zip(parts, counts, strict=True)])
