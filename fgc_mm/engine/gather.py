"""Gathers rows of all ranks, in rank order."""

from collections.abc import Sequence

import torch
from mmengine.dist import all_gather, get_world_size
from torch import Tensor


def gather_tables(tables: Sequence[Tensor]) -> list[Tensor]:
    """Concatenate every rank's rows of several tables.

    Ranks may have different numbers of rows, but the tables of a rank have
    the same; the numbers are exchanged once.

    Args:
        tables: Each (N, ...) on every rank; N may differ between ranks.

    Returns:
        For each table (sum of N, ...), the same on every rank.
    """
    if get_world_size() == 1:
        return list(tables)
    own, device = len(tables[0]), tables[0].device
    counts = all_gather(torch.tensor([own], device=device))
    counts = torch.cat(counts).tolist()
    return [_gather(rows, counts) for rows in tables]


def gather_rows(rows: Tensor) -> Tensor:
    """Concatenate every rank's rows; see :func:`gather_tables`."""
    return gather_tables([rows])[0]


def _gather(rows: Tensor, counts: list[int]) -> Tensor:
    padding = rows.new_zeros(max(counts) - len(rows), *rows.shape[1:])
    padded = all_gather(torch.cat([rows, padding]).contiguous())
    return torch.cat([part[:n] for part, n in zip(padded, counts)])
