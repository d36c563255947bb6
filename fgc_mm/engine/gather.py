"""Rows of all ranks, in rank order."""

import torch
from mmengine.dist import all_gather, get_world_size
from torch import Tensor


def gather_rows(rows: Tensor) -> Tensor:
    """Concatenate every rank's rows; ranks may have different numbers.

    Args:
        rows: (N, ...) on every rank, with its own N.

    Returns:
        (sum of N, ...), the same on every rank.
    """
    if get_world_size() == 1:
        return rows
    counts = all_gather(torch.tensor([len(rows)], device=rows.device))
    counts = [int(count) for count in counts]
    padding = rows.new_zeros(max(counts) - len(rows), *rows.shape[1:])
    padded = all_gather(torch.cat([rows, padding]).contiguous())
    return torch.cat([part[:n] for part, n in zip(padded, counts)])
